"""Watching over HTTP, by server-sent events: one run from its beginning to its end."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi_rfc9457.server import problems

from app.errors import Forbidden, InvalidEventId, RunNotFound, Unauthorized
from app.routers.dependencies import Services, ServicesDep
from app.routers.problems import NothingMore
from app.routers.runs import RunId
from app.routers.security import Reads
from app.routers.streams import BEGINNING, EventStream, encode_all, encode_run
from app.runs import service
from app.runs.events import follow, patiently
from app.runs.schemas import RunRead

router = APIRouter(tags=["events"])


@router.get(
    "/runs/{run_id}/events",
    operation_id="followRun",
    response_class=EventStream,
    responses={204: {"description": "The run has ended, and the client has seen its last event."}}
    | problems(Unauthorized, Forbidden, RunNotFound, InvalidEventId),
)
async def follow_run(
    run_id: RunId,
    services: ServicesDep,
    principal: Reads,
    last_event_id: Annotated[str | None, Header(description="Resume after this event.")] = None,
    after: Annotated[
        str | None, Query(alias="last_event_id", description="The same, for clients that cannot set a header.")
    ] = None,
) -> EventStream:
    """Server-sent events: the run as it is (`snapshot`), its history after `Last-Event-ID`, then live.

    Events are named `state`, `progress`, `log`, `step`, and have the `seq` of the run's history as their id; the last
    one is `end`, with the run as data. Every 15 s of silence there is a comment. A stream that breaks off is resumed
    with the last id: each event comes once and in order.
    """
    seen = _event_id(last_event_id or after)
    # Looked up before the stream begins: inside it, a 404 would come too late.
    look = functools.partial(service.get, services.engine, run_id, owner=principal.owner)
    run = await patiently(look, services.stopping)
    if run.state.is_final and run.last_seq <= seen:
        raise NothingMore
    return EventStream(_history(services, run, seen))


async def _history(services: Services, run: RunRead, seen: int) -> AsyncGenerator[bytes]:
    # Without an id: who is cut off here has still seen no more than before.
    yield BEGINNING + encode_run("snapshot", run)
    async for told in follow(services.engine, services.lookout, run, after=seen, stopping=services.stopping):
        yield encode_all(told)


def _event_id(sent: str | None) -> int:
    if sent is None or sent == "":
        return 0
    if not sent.isascii() or not sent.isdecimal() or len(sent) > 9:
        raise InvalidEventId(detail="Last-Event-ID must be the id of an event of this run.")
    return int(sent)
