"""Watching over HTTP, by server-sent events: one run from its beginning to its end, or all runs as they change."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.sse import KEEPALIVE_COMMENT
from fastapi_rfc9457.server import problems
from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.access.principal import Scope
from app.control.pulse import Topic
from app.errors import Forbidden, InvalidEventId, InvalidInput, QuotaExceeded, RunNotFound, Unauthorized
from app.routers.dependencies import ServicesDep
from app.routers.problems import NothingMore
from app.routers.runs import RunId
from app.routers.security import ONE_STREAM, Reads
from app.routers.services import Services
from app.routers.streams import (
    BEGINNING,
    LARGE,
    STREAM,
    EventStream,
    encode_all,
    encode_model,
    encode_run,
    encode_snapshot,
)
from app.routers.strict import StrictRoute
from app.runs import service
from app.runs.events import follow, patiently
from app.runs.schemas import ActionName, QueueName, RunRead, TagName
from app.runs.watch import Told

router = APIRouter(tags=["events"], route_class=StrictRoute)

TOPICS = ("runs", *Topic)
SNAPSHOT_RUNS = 50
BREATH_SECONDS = 0.25
"""What changes meanwhile is told at once."""

LastEventId = Annotated[str | None, Header(description="Resume after this event.")]
LastEventIdInQuery = Annotated[
    str | None, Query(alias="last_event_id", description="The same, for clients that cannot set a header.")
]


@router.get(
    "/runs/{run_id}/events",
    operation_id="followRun",
    status_code=200,
    response_class=EventStream,
    dependencies=[ONE_STREAM],
    responses=STREAM
    | {204: {"description": "The run has ended, and the client has seen its last event."}}
    | problems(Unauthorized, Forbidden, RunNotFound, InvalidEventId, QuotaExceeded),
)
async def follow_run(
    run_id: RunId,
    services: ServicesDep,
    principal: Reads,
    last_event_id: LastEventId = None,
    after: LastEventIdInQuery = None,
) -> EventStream:
    """Server-sent events: the run as it is (`snapshot`), its history after `Last-Event-ID`, then live.

    Events are named `state`, `progress`, `log`, `step`, and have the `seq` of the run's history as their id; the last
    one is `end`, with the run as data. Every 15 s of silence there is a comment. A stream that breaks off is resumed
    with the last id: each event comes once and in order.
    """
    run, seen = await begin(services, run_id, last_event_id or after, owner=principal.owner)
    # Without an id: who is cut off behind it has still seen no more than before.
    return EventStream(history(services, run, seen, first=encode_run("snapshot", run), encode=encode_all))


async def begin(services: Services, run_id: str, seen: str | None, *, owner: str | None) -> tuple[RunRead, int]:
    """The run to follow, and after which event. Looked up before a stream begins: inside it, a 404 would come too late.

    Raises:
        InvalidEventId: `seen` is not the id of an event.
        RunNotFound: there is no such run.
        NothingMore: it has ended, and its last event has been seen.
    """
    after = _event_id(seen)
    run = await patiently(functools.partial(service.get, services.engine, run_id, owner=owner), services.stopping)
    if run.state.is_final and run.last_seq <= after:
        raise NothingMore
    return run, after


async def history(
    services: Services, run: RunRead, seen: int, *, first: bytes, encode: Callable[[list[Told]], bytes]
) -> AsyncGenerator[bytes]:
    """What a stream of a run sends: `first`, what has come after the event `seen`, and what comes until its end."""
    yield BEGINNING + first
    async for told in follow(services.engine, services.lookout, run, after=seen, stopping=services.stopping):
        yield encode(told)


class Watched(BaseModel):
    """What is watched, and which runs."""

    model_config = ConfigDict(extra="forbid")

    topics: str = Field(default="runs", max_length=100, description=f"Of {', '.join(TOPICS)}; several with commas.")
    action: ActionName | None = None
    queue: QueueName | None = None
    tag: TagName | None = None

    @field_validator("topics")
    @classmethod
    def _known(cls, topics: str) -> str:
        if set(topics.split(",")) - set(TOPICS):
            raise ValueError(f"Topics are: {', '.join(TOPICS)}.")
        return topics

    @property
    def runs(self) -> bool:
        """Whether runs are watched."""
        return "runs" in self.topics.split(",")

    @property
    def others(self) -> list[Topic]:
        """What else is."""
        return [Topic(topic) for topic in self.topics.split(",") if topic != "runs"]

    def fits(self, run: RunRead) -> bool:
        """Whether a run is one of those."""
        return (
            self.runs
            and self.action in (None, run.action)
            and self.queue in (None, run.queue)
            and (self.tag is None or self.tag in run.tags)
        )


@router.get(
    "/events",
    operation_id="followTopics",
    status_code=200,
    response_class=EventStream,
    dependencies=[ONE_STREAM],
    responses=STREAM | problems(Unauthorized, Forbidden, InvalidInput, QuotaExceeded),
)
async def follow_topics(services: ServicesDep, principal: Reads, watched: Annotated[Watched, Query()]) -> EventStream:
    """Server-sent events about all the runs that you see, and for administrators queues and workers: one stream a page.

    First `snapshot`, the newest 50 runs as `{items}`; then `run` for each that changes, as it is after the change,
    without `params` and `result`. Changes that follow each other quickly may be told as one; `last_seq` says which of
    two tellings of a run is the newer. Events have no id: there is nothing to resume, a new stream begins with a new
    `snapshot`, and so does this one when more has changed than can be told. The topics `queues` and `workers` need the
    scope `admin`: events of these names have what `GET /queues` and `GET /workers` answer, at first and once a second
    if it has changed.
    """
    if watched.others and not principal.may(Scope.ADMIN):
        raise Forbidden(detail=f"The topics {', '.join(Topic)} need the scope {Scope.ADMIN}.")
    return EventStream(_changes(services, principal.owner, watched))


async def _changes(services: Services, owner: str | None, watched: Watched) -> AsyncGenerator[bytes]:
    chosen = watched.model_dump(exclude={"topics"})
    look = functools.partial(
        service.list_page, services.engine, limit=SNAPSHOT_RUNS, cursor=None, owner=owner, **chosen
    )

    async def snapshot() -> bytes:
        return encode_snapshot((await patiently(look, services.stopping)).items) if watched.runs else b""

    with services.lookout.changes(owner) as changes, services.pulse.tells(changes, watched.others):
        yield BEGINNING + await snapshot()
        async for runs in changes:
            again = b""
            if changes.has_lost_track:
                changes.has_lost_track = False
                again = await snapshot()
            newest = {run.id: run for run in runs if watched.fits(run)}
            told = [encode_run("run", run, exclude=LARGE) for run in newest.values()]
            told += [encode_model(name, what) for name, what in changes.take_others().items()]
            yield again + b"".join(told) or KEEPALIVE_COMMENT
            await asyncio.sleep(BREATH_SECONDS)


def _event_id(sent: str | None) -> int:
    if sent is None or sent == "":
        return 0
    if not sent.isascii() or not sent.isdecimal() or len(sent) > 9:
        raise InvalidEventId(detail="Last-Event-ID must be the id of an event of this run.")
    return int(sent)
