"""Requests that are what the contract says and nothing else: from somebody who may, with known parameters, and bodies
that are strict JSON.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Coroutine, Mapping
from email.message import Message
from typing import Any
from urllib.parse import unquote_to_bytes

import jiter
from fastapi import Request, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, get_flat_params
from fastapi.routing import APIRoute
from fastapi_rfc9457 import Problem
from fastapi_rfc9457.server import problems
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope
from typing_extensions import override

from app.errors import (
    BodyTooLarge,
    DatabaseBehind,
    DatabaseUnavailable,
    Fault,
    Forbidden,
    HeadersTooLarge,
    InternalError,
    InvalidInput,
    IssuerUnavailable,
    MalformedRequest,
    RequestTooSlow,
    TooManyRequests,
    TwoCredentials,
    Unauthorized,
    UnreadableBody,
    UnsupportedMediaType,
    UrlTooLong,
)
from app.routers.audited import audited
from app.routers.heads import IS_HEAD
from app.routers.security import Access, tell_standing
from app.routers.sites import SAFE_METHODS
from app.routers.streams import EventStream
from app.runs.values import check_storable, has_more_than

LARGEST_BODY_BYTES = 2 * 1024 * 1024
MOST_VALUES = 100_000
"""Of JSON, in one body: checking a million takes a second, in which nobody else is served."""
_ANY_CALLER = (TwoCredentials, Unauthorized, Forbidden, TooManyRequests, IssuerUnavailable)
_ANY_REQUEST = (
    MalformedRequest,
    RequestTooSlow,
    UrlTooLong,
    InvalidInput,
    HeadersTooLarge,
    InternalError,
)
_BODIES = (UnreadableBody, BodyTooLarge, UnsupportedMediaType)
_DATABASE = (DatabaseUnavailable, DatabaseBehind)
_WHERE = re.compile(r" at line \d+ column \d+$")


class StrictRoute(APIRoute):
    """A route that asks who calls, takes what it documents, and documents what is refused for any route.

    A write is written down at its end.
    """

    @override
    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        responses: Mapping[int | str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        needs = get_dependant(path=path, call=endpoint)
        refuses = [
            *_ANY_REQUEST,
            *(_ANY_CALLER if access_of(needs) else ()),
            *(_BODIES if needs.body_params else ()),
            *(_DATABASE if needs.dependencies or needs.request_param_name else ()),
        ]
        super().__init__(path, endpoint, responses=with_problems(responses or {}, *refuses), **options)

    @property
    def is_stream(self) -> bool:
        """Whether it answers for as long as somebody listens. HEAD would hold a place there for nobody."""
        return isinstance(self.response_class, type) and issubclass(self.response_class, EventStream)

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, access = super().get_route_handler(), access_of(self.dependant)
        takes_body = self.body_field is not None
        known, is_stream = _query_parameters(self.dependant), self.is_stream

        async def handle_strictly(request: Request) -> Response:
            if is_stream and IS_HEAD in request.scope:
                raise HTTPException(405)
            # First of all: a body is not read for whoever may not send it.
            if access is not None:
                await access.admit(request)
            check_url(request.scope, known)
            if takes_body:
                request = _StrictRequest(request.scope, request.receive)
                await request.read_json()
            response = await handle(request)
            tell_standing(request, response)
            return response

        return handle_strictly if (self.methods or set()) <= SAFE_METHODS else audited(handle_strictly, self.path)


def access_of(dependant: Dependant) -> Access | None:
    """What a route, or one of its dependencies, asks of its caller."""
    if isinstance(dependant.call, Access):
        return dependant.call
    return next(filter(None, map(access_of, dependant.dependencies)), None)


def with_problems(responses: Mapping[int | str, dict[str, Any]], *kinds: type[Problem]) -> dict[int | str, Any]:
    """The documented responses of a route, and these problems too."""
    merged = dict(responses)
    for kind in kinds:
        for status, added in problems(kind).items():
            given = merged.get(status)
            if given is None:
                merged[status] = added
            elif "model" in given and added["description"] not in given["description"]:
                merged[status] = {
                    **given,
                    "model": given["model"] | added["model"],
                    "description": f"{given['description']} / {added['description']}",
                    "headers": {**given.get("headers", {}), **added.get("headers", {})},
                }
    return merged


def check_url(scope: Scope, known: frozenset[str]) -> None:
    """Refuse a path or a query that is not text, and parameters that the route does not know.

    Raises:
        InvalidInput: it names each.
    """
    query = scope["query_string"]
    if b"%" in scope["raw_path"] and not _is_text(scope["raw_path"]):
        raise InvalidInput(errors=[Fault(pointer="path", detail=_NOT_TEXT, type="unstorable_text")])
    if query:
        faults = [fault for pair in query.split(b"&") if (fault := _fault_of_parameter(pair, known))]
        if faults:
            raise InvalidInput(errors=faults)


_NOT_TEXT = "Must be UTF-8 without NUL, percent-encoded."


def _fault_of_parameter(pair: bytes, known: frozenset[str]) -> Fault | None:
    name, _, value = pair.replace(b"+", b" ").partition(b"=")
    text = unquote_to_bytes(name).decode("utf-8", "replace").replace("\x00", "\ufffd")
    if pair and text not in known:
        there_are = ", ".join(sorted(known)) or "none"
        return Fault(pointer=text[:64], detail=f"There is no such parameter; there are: {there_are}.", type="unknown")
    if not _is_text(value):
        return Fault(pointer=text, detail=_NOT_TEXT, type="unstorable_text")
    return None


def _is_text(encoded: bytes) -> bool:
    raw = unquote_to_bytes(encoded)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\x00" not in raw


def _query_parameters(dependant: Dependant) -> frozenset[str]:
    # A field of a model of parameters is of no kind itself.
    others = (params.Path, params.Header, params.Cookie)
    return frozenset(field.alias for field in get_flat_params(dependant) if not isinstance(field.field_info, others))


class _StrictRequest(Request):
    async def read_json(self) -> None:
        """Read the body as strict JSON, and stop as soon as it is too large. Without a body there is nothing to check.

        Raises:
            UnsupportedMediaType: it says that it is something else, or is compressed.
            BodyTooLarge: it has more than `LARGEST_BODY_BYTES`.
            UnreadableBody: it is not JSON in UTF-8, or names a key twice.
            InvalidInput: it has what cannot be stored: see `check_storable`.
        """
        headers = self.headers
        if "content-encoding" in headers:
            raise UnsupportedMediaType(detail="Send the body as it is, without Content-Encoding.")
        length = headers.get("content-length", "")
        # Before anything is read: who sends `Expect: 100-continue` need not send it.
        if length.isdecimal() and int(length) > LARGEST_BODY_BYTES:
            raise BodyTooLarge(detail=f"The body is larger than {LARGEST_BODY_BYTES} bytes.")
        body = await self._read()
        if not body:
            return
        if not _is_json(headers.get("content-type")):
            raise UnsupportedMediaType(detail="Send Content-Type: application/json, and the body in UTF-8.")
        self._json = parse(body)

    async def _read(self) -> bytes:
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > LARGEST_BODY_BYTES:
                raise BodyTooLarge(detail=f"The body is larger than {LARGEST_BODY_BYTES} bytes.")
        self._body = bytes(body)
        return self._body


def parse(body: bytes) -> Any:
    """The value that the JSON says.

    Raises:
        UnreadableBody: it is not JSON in UTF-8 (half surrogates are not, nor is NaN), or names a key twice.
        InvalidInput: it has more than `MOST_VALUES` values, or what cannot be stored: see `check_storable`.
    """
    try:
        value = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise UnreadableBody(detail=f"The body is not JSON in UTF-8: {_reason(str(error))}.") from None
    # A value takes a byte at least.
    if len(body) > MOST_VALUES and has_more_than(MOST_VALUES, value):
        raise InvalidInput(errors=[_TOO_MANY])
    check_storable(value, "")
    return value


_TOO_MANY = Fault(pointer="", detail=f"More than {MOST_VALUES:,} values and keys.", type="too_many_values")


def _reason(message: str) -> str:
    # The one message that repeats what was sent.
    if message.startswith("Detected duplicate key"):
        where = _WHERE.search(message)
        return f"a key is there twice{where[0] if where else ''}"
    return message


@functools.lru_cache(maxsize=64)
def _is_json(content_type: str | None) -> bool:
    message = Message()
    message["content-type"] = content_type or ""
    charset = message.get_content_charset("utf-8")
    return message.get_content_type() == "application/json" and charset in ("utf-8", "utf8", "us-ascii")
