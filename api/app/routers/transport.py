"""HTTP before there is a request: what is malformed, too long or too slow is answered here, and no route hears of it.

uvicorn reads HTTP strictly, but without limits: a request may have headers of any size, and take for ever to arrive.
"""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

import httptools
from fastapi_rfc9457 import Problem
from fastapi_rfc9457.models import PROBLEM_MEDIA_TYPE
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.errors import HeadersTooLarge, MalformedRequest, RequestTooSlow, UrlTooLong
from app.routers.problems import as_json

LONGEST_URL = 8 * 1024
LARGEST_HEADERS = 16 * 1024
MOST_HEADERS = 100
COMPLETE_SECONDS = 10.0

# Of which a second one would be believed by somebody else than the first.
_ONCE = frozenset({b"host", b"authorization", b"content-type", b"content-length", b"idempotency-key", b"last-event-id"})
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?")


class StrictHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits, a deadline, exactly one `Host`, and problem documents instead of plain text."""

    complete_seconds = COMPLETE_SECONDS

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._refusal: Problem | None = None
        self._in_head = False
        self._head_received = 0
        self._headers_size = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._begin_deadline()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        was_in_head = self._in_head
        if self._deadline is None and self._is_idle():
            self._begin_deadline()
        super().data_received(data)
        if was_in_head and self._in_head:
            # The parser keeps a header to itself until it is complete.
            self._head_received += len(data)
            if self._head_received > LONGEST_URL + LARGEST_HEADERS:
                self._refuse(HeadersTooLarge(detail=f"The headers are larger than {LARGEST_HEADERS} bytes."))

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or MalformedRequest(detail="This is not HTTP/1.1 as RFC 9112 has it."))

    @override
    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_received = self._headers_size = 0
        super().on_message_begin()

    @override
    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > LONGEST_URL:
            self._stop_parsing(UrlTooLong(detail=f"The URL is longer than {LONGEST_URL} bytes."))

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers_size += len(name) + len(value) + len(b": \r\n")
        if self._headers_size > LARGEST_HEADERS or len(self.headers) == MOST_HEADERS:
            self._stop_parsing(
                HeadersTooLarge(detail=f"Send at most {MOST_HEADERS} headers, of {LARGEST_HEADERS} bytes together.")
            )
        super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        self._in_head = False
        self._check_headers()
        super().on_headers_complete()

    @override
    def on_message_complete(self) -> None:
        self._end_deadline()
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Who asked whether to send a body, and got an answer instead, will not send it: what comes next is a request.
        if self.expect_100_continue and self.cycle.more_body and not self.pipeline:
            self.transport.close()
        # A request that was answered before it was complete, or came close upon another.
        if self._deadline is None and (self._in_head or self.cycle.more_body):
            self._begin_deadline()

    def _check_headers(self) -> None:
        once = [name for name, _ in self.headers if name in _ONCE]
        if len(once) != len(set(once)):
            self._stop_parsing(MalformedRequest(detail="A header that may be sent once was sent twice."))
        host = next((value for name, value in self.headers if name == b"host"), None)
        if host is None:
            if self._version() != "1.0":
                self._stop_parsing(MalformedRequest(detail="Send a Host header."))
            return
        if not _HOST.fullmatch(host):
            self._stop_parsing(MalformedRequest(detail="The Host header is not the name of a host."))
        if not self.url.startswith((b"/", b"*")) and _authority(self.url) != host.lower():
            self._stop_parsing(MalformedRequest(detail="The URL names another host than the Host header."))

    def _version(self) -> str:
        assert self.parser is not None
        return self.parser.get_http_version()

    def _stop_parsing(self, refusal: Problem) -> None:
        """Raise, out of a callback of the parser, what makes uvicorn call `send_400_response`."""
        self._refusal = refusal
        raise httptools.HttpParserError(refusal.title)

    def _refuse(self, problem: Problem) -> None:
        """Answer and close; only close where that would be said into another answer."""
        if self.transport.is_closing():
            return
        if self._may_answer():
            self.transport.write(_response(problem, self.server_state.default_headers))
        if (cycle := self._current) is not None:
            # Whoever reads this request is told that there is nothing more to read.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def _may_answer(self) -> bool:
        cycle = self._current
        if cycle is None:
            return True
        if cycle.response_complete:
            return self._in_head or not cycle.more_body
        return not (self._in_head or cycle.response_started or self.pipeline) and cycle.more_body

    @property
    def _current(self) -> RequestResponseCycle | None:
        # uvicorn declares that there is always one.
        return self.cycle

    def _is_idle(self) -> bool:
        cycle = self._current
        return cycle is None or cycle.response_complete

    def _begin_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.complete_seconds, self._on_deadline)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        self._deadline = None
        cycle = self._current
        if self._in_head or (cycle is not None and cycle.more_body):
            self._refuse(RequestTooSlow(detail=f"The request was not complete within {self.complete_seconds:g} s."))
        else:
            self.transport.close()


def _response(problem: Problem, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    body = as_json(problem)
    headers = [
        *default_headers,
        (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    return b"".join([STATUS_LINE[problem.status], *(b"%s: %s\r\n" % header for header in headers), b"\r\n", body])


def _authority(url: bytes) -> bytes:
    return urlsplit(url).netloc.lower()
