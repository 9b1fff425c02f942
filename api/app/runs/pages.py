"""Pages of runs: at a cost that depends on the page, whatever the ledger holds and whatever is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.runs.queries import RunRow
from app.runs.state import RunState

WINDOW = 10_000
"""So many runs are looked at for one page."""
SLACK = 1_000
"""Runs get their places in the order of their times almost: none is further than this from where its time would be."""
LARGEST_SEARCHED_BYTES = 8_192
HEAVIEST_PAGE_BYTES = 1_000_000
"""As stored, compressed. A page ends with the run that makes it heavier: what is read must fit into memory."""
_FIRST = "(SELECT job_id FROM action_runs WHERE id >= :{} ORDER BY id LIMIT 1)"
_LAST_PLACE = 2**63 - 1
_EVERY_RUN = ("action_runs", "job_id", ())
_WEIGHT = "pg_column_size(params) + coalesce(pg_column_size(result), 0)"


class Way(NamedTuple):
    """Which way a look at runs goes, from the job `:at`: its condition, its order, and where the next look begins.

    Downwards that is before the last place of this one, upwards with the first that is not of it.
    """

    begins: str
    order: str
    edge: int


DOWN = Way("(CAST(:at AS bigint) IS NULL OR {place} < :at)", "DESC", WINDOW - 1)
UP = Way("{place} >= :at", "ASC", WINDOW)

# Until a worker has looked, a scheduled run whose time has come is still written as scheduled.
_IN_STATE = {
    RunState.SCHEDULED: "state = 'scheduled' AND schedule_at > now()",
    RunState.QUEUED: "(state = 'queued' OR (state = 'scheduled' AND schedule_at <= now()))",
} | {
    state: f"state = '{state}'"
    for state in RunState
    if state not in (RunState.SCHEDULED, RunState.QUEUED)
}  # fmt: skip
_FITS = {
    "owner": "owner = :owner",
    "action": "action = :action",
    "queue": "queue = :queue",
    "parent_id": "parent_id = :parent_id",
    "tag": "tags @> ARRAY[CAST(:tag AS text)]",
    "since": "created_at >= :since",
    "until": "created_at < :until",
    # Stored out of line, params would have to be fetched for each run that is looked at.
    "q": f"CASE WHEN pg_column_size(params) <= {LARGEST_SEARCHED_BYTES} "
    "THEN strpos(lower(params::text), lower(:q)) > 0 END",
}


@dataclass(frozen=True)
class Page:
    """Runs, newest first, and where the pages beside it begin."""

    rows: list[RunRow]
    last: int | None
    """The job to go on before; `None`: nothing follows."""
    first: int | None = None
    """The job from which on to go up again; `None`: nothing is newer."""
    searched_until: datetime | None = None
    """Set if the page ends where the look did."""


async def get_page(
    connection: AsyncConnection, *, limit: int, before: int | None = None, onwards: int | None = None, **filters: Any
) -> Page:
    """The newest runs that fit, older than the one whose job is `before`; or the oldest from `onwards` on.

    Args:
        filters: owner, action, state, queue, tag, since, until, q; `None`: whichever.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    way, at = (DOWN, before) if onwards is None else (UP, onwards)
    values = _values(given) | {"at": at, "limit": limit + 1}
    rows = list((await connection.execute(_bound(page_of(given, way), values))).all())[:limit]
    edge, searched_until = None, None
    if rows and rows[-1].following:
        edge = rows[-1].job_id if way is DOWN else rows[-1].following
    elif found := (await connection.execute(_bound(_edge_of(given, way), values))).first():
        edge, searched_until = found.job_id, found.created_at
    if way is DOWN:
        return Page(rows, last=edge, first=before, searched_until=searched_until)
    return Page(rows[::-1], last=onwards, first=edge, searched_until=searched_until)


async def count(connection: AsyncConnection, **filters: Any) -> int:
    """How many runs fit. It reads all of them."""
    given = {name: value for name, value in filters.items() if value is not None}
    statement = f"SELECT count(*) FROM {_runs_at(given, DOWN)}{_where(_fitting(given))}"
    return (await connection.execute(_bound(statement, _values(given) | {"at": None}))).scalar_one()


async def estimate(connection: AsyncConnection, **filters: Any) -> int:
    """About how many runs fit, at the cost of a search.

    Where there are fewer than `WINDOW` to look at, as many as it says; else the share of the newest that fits, of as
    many as the planner believes there are, and no fewer than were seen.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    values = _values(given) | {"at": None}
    looked, fit = (await connection.execute(_bound(look_of(given), values))).one()
    if looked < WINDOW:
        return fit
    return max(fit, fit * await _believed(connection, given, values) // looked)


async def count_ids(connection: AsyncConnection, run_ids: list[str], *, owner: str | None) -> int:
    """How many of these runs there are; the owner's only, if one is given."""
    statement = text(
        "SELECT count(*) FROM action_runs "
        "WHERE id = ANY (:run_ids) AND (CAST(:owner AS text) IS NULL OR owner = :owner)"
    )
    return (await connection.execute(statement, {"run_ids": run_ids, "owner": owner})).scalar_one()


def page_of(given: dict[str, Any], way: Way) -> str:
    """The statement of a page, in the order in which it is read; `following` is what comes next, on it or not."""
    runs = _runs_at(given, way, limit=WINDOW)
    found = f"SELECT run.* FROM {runs}{_where(_fitting(given))} ORDER BY place.job_id {way.order} LIMIT :limit"
    return f"""
        SELECT run.*, now() AS read_at
          FROM (SELECT run.*, lead(job_id) OVER (ORDER BY job_id {way.order}) AS following,
                       sum({_WEIGHT}) OVER before AS weight_before
                  FROM ({found}) AS run
                WINDOW before AS (ORDER BY job_id {way.order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS run
         WHERE coalesce(weight_before, 0) < {HEAVIEST_PAGE_BYTES}
         ORDER BY job_id {way.order}
    """


def look_of(given: dict[str, Any]) -> str:
    """The statement that counts, of the newest, those looked at and those that fit."""
    runs = _runs_at(given, DOWN, limit=WINDOW)
    fitting = " AND ".join(_fitting(given)) or "true"
    return f"SELECT count(*), count(*) FILTER (WHERE {fitting}) FROM {runs}"


async def _believed(connection: AsyncConnection, given: dict[str, Any], values: dict[str, Any]) -> int:
    """How many runs there are to look at, as the planner believes: he reads none."""
    table, place, leading = _leading(given)
    conditions = [*leading]
    for name, sign in (("since", ">="), ("until", "<")):
        if name in given:
            # He has a belief about numbers only, not about what he would have to look up.
            job_id = await connection.scalar(_bound(f"SELECT {_FIRST.format(f'{name}_id')}", values))
            conditions.append(f"{place} {sign} {_LAST_PLACE if job_id is None else job_id}")
    statement = f"EXPLAIN (FORMAT JSON) SELECT FROM {table}{_where(conditions)}"
    [plan] = await connection.scalar(_bound(statement, values))
    return plan["Plan"]["Plan Rows"]


def _edge_of(given: dict[str, Any], way: Way) -> str:
    """Where the look ends, if there may be more."""
    places = _places(given, way)
    return f"SELECT job_id, created_at FROM action_runs WHERE job_id = ({places} OFFSET {way.edge} LIMIT 1)"


def _runs_at(given: dict[str, Any], way: Way, *, limit: int | None = None) -> str:
    """The runs to look at as `run`, in the order of `place.job_id`."""
    limited = f" LIMIT {limit}" if limit else ""
    if _leading(given) is _EVERY_RUN:
        # In the order of their jobs, which is the only index that this asks: there is no second look to spare.
        every = f"({_places(given, way, columns='*')}{limited}) AS run"
        return f"{every} CROSS JOIN LATERAL (SELECT run.job_id) AS place"
    # One by one in their order, whatever else the planner would think of: OFFSET 0 leaves it no other join.
    return (
        f"({_places(given, way)}{limited}) AS place "
        "CROSS JOIN LATERAL (SELECT * FROM action_runs WHERE job_id = place.job_id OFFSET 0) AS run"
    )


def _places(given: dict[str, Any], way: Way, *, columns: str = "{place} AS job_id") -> str:
    """The jobs of the runs to look at: what the most selective index has, in its order. It needs nothing else."""
    table, place, leading = _leading(given)
    bounds = [way.begins.format(place=place)]
    if "since" in given:
        bounds.append(f"{place} >= {_FIRST.format('since_id')} - {SLACK}")
    if "until" in given:
        bounds.append(f"{place} < coalesce({_FIRST.format('until_id')} + {SLACK}, {_LAST_PLACE})")
    chosen = columns.format(place=place)
    return f"SELECT {chosen} FROM {table}{_where([*leading, *bounds])} ORDER BY {place} {way.order}"


def _leading(given: dict[str, Any]) -> tuple[str, str, Sequence[str]]:
    """The table to look in, the column of jobs there, and what its index knows.

    Said here and not left to the planner, who believes that what is rare is as likely to be near as far. What waits or
    runs is few and has an index by its jobs; there is none on the state of runs, because every run would write it.
    """
    state = given.get("state")
    if state in (RunState.SCHEDULED, RunState.QUEUED, RunState.RUNNING):
        return "procrastinate_jobs", "id", ["status IN ('todo', 'doing')"]
    if "parent_id" in given:
        return "run_children", "job_id", ["parent_id = :parent_id"]
    if "tag" in given:
        return "run_tags", "job_id", ["tag = :tag"]
    if state in (RunState.RETRYING, RunState.FAILED, RunState.CANCELLED):
        return "action_runs", "job_id", [f"trouble = '{state}'"]
    if given.get("queue", "default") != "default":
        return "action_runs", "job_id", ["queue = :queue", "queue <> 'default'"]
    for name in ("action", "owner"):
        if name in given:
            return "action_runs", "job_id", [f"{name} = :{name}"]
    return _EVERY_RUN


def _fitting(given: dict[str, Any]) -> list[str]:
    fits = [_FITS[name] for name in given if name in _FITS]
    return [*fits, _IN_STATE[given["state"]]] if "state" in given else fits


def _values(given: dict[str, Any]) -> dict[str, Any]:
    # Ids begin with their second.
    ids = {f"{name}_id": f"run_{given[name]:%Y%m%dT%H%M%SZ}" for name in ("since", "until") if name in given}
    # As it is written in JSON.
    text = {"q": json.dumps(given["q"], ensure_ascii=False)[1:-1]} if "q" in given else {}
    return given | ids | text


def _bound(statement: str, values: dict[str, Any]) -> TextClause:
    clause = text(statement)
    return clause.bindparams(**{name: values[name] for name in clause._bindparams})


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""
