"""The headers that requests and answers about runs have in common, read and written as their standards say."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response

from app.errors import InvalidIdempotencyKey
from app.routers.security import Principal
from app.runs.idempotency import Idempotency
from app.runs.schemas import RunPage, RunRead
from app.runs.state import RunState

LONGEST_WAIT_SECONDS = 30

_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BARE = re.compile(r"[!#-~][ -~]*")
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)


def header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    """A request header as OpenAPI describes it, for those that are read by hand."""
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


PREFER = header(
    "Prefer",
    f"`wait=N`: answer when the run has ended, or after N seconds, {LONGEST_WAIT_SECONDS} at most (RFC 7240).",
    type="string", examples=["wait=10"],
)  # fmt: skip
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "Makes it safe to send the request again: for at least 24 hours, the same key of the same caller with the same "
    "body gets the run, or the adventure, that it has made, as it is now, with `Idempotent-Replayed: true`. 1 to 255 "
    "printable ASCII characters, plain or in double quotes.",
    type="string", maxLength=257, examples=["9f2d6a52-5d1c-4c86-9f0c-4c0f4b4f1f0e"],
)  # fmt: skip


def idempotency(request: Request, principal: Principal) -> Idempotency | None:
    """The `Idempotency-Key` of a request, if it has one: a string of RFC 9651, or the bare text of it.

    Raises:
        InvalidIdempotencyKey: it is empty, too long, or has characters that no such string has.
    """
    sent = request.headers.get("idempotency-key")
    if sent is None:
        return None
    quoted = _QUOTED.fullmatch(sent)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else sent
    if not 1 <= len(key) <= 255 or not (quoted or _BARE.fullmatch(sent)):
        raise InvalidIdempotencyKey(
            detail="Idempotency-Key must be 1 to 255 printable ASCII characters, plain or in double quotes."
        )
    return Idempotency(principal.owner or principal.actor, key, f"{request.method} {request.url.path}")


def seconds_to_wait(request: Request) -> int | None:
    """What `Prefer: wait=N` asks for, in seconds; a preference that is not understood is none (RFC 7240)."""
    for preference in request.headers.getlist("prefer"):
        if found := _WAIT.search(preference):
            return min(int(found[1]), LONGEST_WAIT_SECONDS)
    return None


def etag(run: RunRead, *, of: str = "") -> str:
    """The version of a run: its newest event, and its state, which a scheduled run's time changes without one.

    Args:
        of: which representation of it.
    """
    return f'"{run.last_seq}-{run.state}{of}"'


def matches(request: Request, tag: str) -> bool:
    """Whether the client has this version (`If-None-Match`, RFC 9110 §13.1.2)."""
    sent = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    return tag in sent or "*" in sent


def link_pages(page: RunPage, request: Request, response: Response) -> None:
    """Set `Link` to the pages beside this one, with the same filters."""
    beside = {"next": page.next, "prev": page.prev}
    urls = {rel: request.url.include_query_params(cursor=cursor) for rel, cursor in beside.items() if cursor}
    if urls:
        response.headers["Link"] = ", ".join(f'<{url.path}?{url.query}>; rel="{rel}"' for rel, url in urls.items())


def when_to_look_again(run: RunRead, response: Response) -> None:
    """Set `Retry-After`, in seconds, unless the run has ended: patient clients poll less as a run gets older."""
    if (seconds := patience(run)) is not None:
        response.headers["Retry-After"] = str(seconds)


def patience(run: RunRead) -> int | None:
    """How many seconds to wait before looking again; `None`: there is nothing more to see."""
    if run.state.is_final:
        return None
    now = datetime.now(UTC)
    if run.state is RunState.SCHEDULED and run.schedule_at is not None:
        return min(max(int((run.schedule_at - now).total_seconds()), 1), 60)
    age = (now - run.created_at).total_seconds()
    return next((pause for until, pause in ((10, 1), (60, 2), (600, 5)) if age < until), 15)
