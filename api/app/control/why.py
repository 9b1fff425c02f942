"""Why a run is not running: the facts are gathered by one statement, and explained."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from app.control import queries
from app.control.schemas import Why
from app.errors import RunNotFound
from app.outbound.postgres.database import autocommit
from app.runs.explain import AHEAD_CAP, Facts, explain
from app.runs.schemas import RUN_ID
from app.runs.state import RunState


async def why(engine: AsyncEngine, run_id: str, *, owner: str | None, lease: float) -> Why:
    """Why a run is not running.

    Raises:
        RunNotFound: there is none with that id, or it is not the owner's.
    """
    row = None
    if RUN_ID.fullmatch(run_id):
        async with autocommit(engine).connect() as connection:
            row = await queries.get_facts(connection, run_id, owner=owner, lease=lease, cap=AHEAD_CAP)
    if row is None:
        raise RunNotFound(detail="There is no run with that id.")
    facts = Facts(**row._mapping)
    return Why(id=run_id, state=_state_now(facts), reasons=explain(facts))


def _state_now(facts: Facts) -> RunState:
    # Nobody rewrites a scheduled run when its time has come.
    is_due = facts.state == RunState.SCHEDULED and (facts.due_at is None or facts.due_at <= facts.now)
    return RunState.QUEUED if is_due else RunState(facts.state)
