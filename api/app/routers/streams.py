"""Server-sent events on the wire: encoded once for all who watch, and never for long to somebody who does not read."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncGenerator
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Send
from typing_extensions import override

from app.runs.schemas import EventRead, RunRead
from app.runs.watch import Told

RECONNECT_MILLISECONDS = 3000
SLOWEST_SECONDS = 30.0
"""Who has not read what was sent for this long has gone, whatever his connection says."""
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
LARGE = {"params", "result"}
BEGINNING = format_sse_event(retry=RECONNECT_MILLISECONDS, comment="runledger")


STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events.",
        "content": {
            "text/event-stream": {
                "itemSchema": {
                    "type": "object",
                    "required": ["event", "data"],
                    "properties": {
                        "event": {"type": "string"},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                        "id": {"type": "string"},
                        "retry": {"type": "integer"},
                    },
                }
            }
        },
    }
}
"""What OpenAPI says of a stream."""


class EventStream(StreamingResponse):
    """A stream of server-sent events that ends when its client does not read."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[bytes], status_code: int = 200) -> None:
        super().__init__(chunks, status_code, headers=HEADERS)
        self._chunks = chunks

    @override
    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(self._chunks):
            async for chunk in self._chunks:
                async with asyncio.timeout(SLOWEST_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def encode_run(event: str, run: RunRead, *, seq: int | None = None, exclude: set[str] | None = None) -> bytes:
    """A run as the data of an event."""
    id_ = None if seq is None else str(seq)
    return format_sse_event(event=event, data_str=run.model_dump_json(exclude=exclude), id=id_)


def encode_model(event: str, what: BaseModel) -> bytes:
    """What a route answers, as the data of an event."""
    return format_sse_event(event=event, data_str=what.model_dump_json())


def encode_snapshot(runs: list[RunRead]) -> bytes:
    """Several runs as the data of one event."""
    items = ",".join([run.model_dump_json(exclude=LARGE) for run in runs])
    return format_sse_event(event="snapshot", data_str=f'{{"items":[{items}]}}')


def encode_all(told: list[Told]) -> bytes:
    """Events as they are sent; a comment, if nothing has happened."""
    return b"".join([encode(one) for one in told]) or KEEPALIVE_COMMENT


@functools.lru_cache(maxsize=2_048)
def encode(told: Told) -> bytes:
    """One event as it is sent to everybody who watches."""
    match told.what:
        case RunRead() as run:
            return encode_run("end", run, seq=told.seq)
        case EventRead() as event:
            data = json.dumps(event.model_dump(mode="json", include={"at"}) | event.data, separators=(",", ":"))
            return format_sse_event(event=event.type, data_str=data, id=str(event.seq))
