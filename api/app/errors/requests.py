"""Requests that are not what they should be, or from whom they should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from app.errors.kinds import NotNow, Refused


class MalformedRequest(Refused):
    """The request line, a header or the framing is not HTTP as it should be. Use an HTTP client library."""

    title = "Malformed request"
    status = 400


class RequestTooSlow(Refused):
    """The request was not complete in time. Send it again, all at once."""

    title = "The request was too slow"
    status = 408


class UrlTooLong(Refused):
    """The URL is longer than 8 KiB. Filter by fewer values, or send them in a body where there is one."""

    title = "The URL is too long"
    status = 414


class HeadersTooLarge(Refused):
    """The headers are larger than 16 KiB together, or more than 100. Send fewer cookies and tokens."""

    title = "The headers are too large"
    status = 431


class UnsupportedMediaType(Refused):
    """The body is not what is taken here: JSON in UTF-8, or for `POST /files` any file, neither of them compressed."""

    title = "Unsupported media type"
    status = 415


class UnreadableBody(Refused):
    """The body is not JSON in UTF-8, or it names a key twice. Send what a JSON library writes, without NaN."""

    title = "The body cannot be read"
    status = 400


class BodyTooLarge(Refused):
    """The body is larger than 2 MiB, or a file than 20 MiB. Put what is larger where the action can fetch it."""

    title = "The body is too large"
    status = 413


class InvalidCursor(Refused):
    """The cursor did not come from this API. Start again without `cursor`."""

    title = "Invalid cursor"
    status = 400


class InvalidEventId(Refused):
    """`Last-Event-ID` must be the id of an event of this run: a whole number, 0 or more."""

    title = "Invalid event id"
    status = 400


class InvalidIdempotencyKey(Refused):
    """`Idempotency-Key` must be 1 to 255 printable ASCII characters, plain or in double quotes."""

    title = "Invalid idempotency key"
    status = 400


class IdempotencyKeyMissing(Refused):
    """Runs of this action are submitted with an `Idempotency-Key` only. Send one, the same when you send it again."""

    title = "The idempotency key is missing"
    status = 400


class Fault(BaseModel):
    """One thing that is wrong with the input."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pointer": "/params/message", "detail": "Field required", "type": "missing"}]}
    )

    pointer: str
    """JSON pointer (RFC 6901) into the request body, or the name of the parameter."""
    detail: str
    """What is wrong, without the value that was sent."""
    type: str
    """Pydantic's name for the fault, such as `missing`."""


class InvalidInput(Refused):
    """The input does not fit the schema. Each fault has a pointer to where it is."""

    title = "Invalid input"
    status = 422
    errors: list[Fault]


class TwoCredentials(Refused):
    """More than one credential was sent. Send one: a secret, an API key or a token, in one header."""

    title = "More than one credential"
    status = 400


class Unauthorized(Refused):
    """No credential, or one that is not right. Send a secret in `X-ROADMAP-AI-SECRET`, or a key or JWT as Bearer."""

    title = "Unauthorized"
    status = 401
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "How to authenticate (RFC 9110 §11.6.1)."}

    def response_headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="runledger"'}


class Forbidden(Refused):
    """The credential is right, and does not allow this. Ask an administrator for one with the scope that is named."""

    title = "Forbidden"
    status = 403


class TooManyRequests(NotNow):
    """You, or your address, ask more often than is allowed. Wait for `Retry-After`; submit many runs by one batch."""

    type = "/problems/rate-limited"
    title = "Too many requests"
    status = 429


class QuotaExceeded(NotNow):
    """You have as many queued runs, or as many open streams, as you may. Wait until some end, or end some."""

    title = "The quota is used up"
    status = 429
    quota: str
    """Which: `queued_runs` or `open_streams`."""
    limit: int
