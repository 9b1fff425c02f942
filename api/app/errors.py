"""Every error of Runledger, what it means to a caller, and its HTTP status.

::

    Problem                      rendered as an RFC 9457 document, by its class
    ├── Refused                  the request cannot be done; asking again will not help
    │   ├── MalformedRequest 400   UnreadableBody   400   InvalidCursor    400   InvalidEventId   400
    │   ├── TwoCredentials   400   InvalidIdempotencyKey 400
    │   ├── Unauthorized     401   Forbidden        403
    │   ├── UnknownAction    404   RunNotFound      404   WebhookNotFound  404   DeliveryNotFound 404
    │   ├── AdventureNotFound 404  ChoiceNotFound   422  ChoiceDecided    409
    │   ├── ScheduleNotFound 404   DeadLetterNotFound 404  FileNotFound 404
    │   ├── RunFinal         409   RunNotFailed     409   AlreadyQueued    409   NotUnique 409   NoResult 409
    │   ├── SignalSent       409
    │   ├── TooManyWebhooks  409   WebhookDisabled  409   DeliveryPending  409
    │   ├── ScheduleExists   409   ScheduleDeclared 409
    │   ├── RequestTooSlow   408   BodyTooLarge     413   UrlTooLong       414   HeadersTooLarge  431
    │   ├── UnsupportedMediaType 415
    │   ├── IdempotencyKeyReused 422
    │   └── InvalidInput     422   (with a JSON pointer for each fault)
    ├── NotNow                   asking again later may help
    │   ├── IdempotencyInFlight 409   RunNotFinished  409
    │   ├── TooManyRequests  429   QuotaExceeded    429
    │   ├── DatabaseUnavailable 503   DatabaseBehind  503   TooBusy 503   IssuerUnavailable 503
    │   └── StorageUnavailable 503
    └── InternalError        500   our mistake; the log has the cause, under the id that the answer has

    ActionError                  what an action or an outbound client raises
    ├── Unavailable              the other side is down or slow: retry with backoff
    │   └── RateLimited          … and it said when: retry after that
    └── Rejected                 the other side said no: do not retry
        └── ChildFailed   SignalTimeout   what the run waited for has failed, or has not come

    NotBegun                     the action has not begun: put it back
    RunWaits                     the run waits: this attempt ends here, and goes on from the top
    RunLost                      this worker no longer holds the run: stop quietly
    ConfigurationError           the process cannot start like this; the message says what to set
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastapi_rfc9457 import Problem
from pydantic import BaseModel, ConfigDict, NonNegativeInt


class Refused(Problem, abstract=True):
    """The request cannot be done as it is; asking again will not help."""

    retryable: ClassVar[bool] = False


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


class UnknownAction(Refused):
    """There is no action of that name. `GET /actions` lists those there are."""

    title = "Unknown action"
    status = 404


class RunNotFound(Refused):
    """There is no run with that id."""

    title = "Run not found"
    status = 404


class RunFinal(Refused):
    """The run has already ended: it can neither be cancelled nor be told anything. Read it with `GET /runs/{id}`."""

    title = "The run has ended"
    status = 409
    state: str


class RunNotFailed(Refused):
    """Only a run that failed or was cancelled can be retried."""

    title = "The run has not failed"
    status = 409
    state: str


class SignalSent(Refused):
    """The run was sent this signal with other data, and the first counts. Send the next one under a name of its own."""

    title = "The signal was sent before"
    status = 409


class AlreadyQueued(Refused):
    """A run with the same queueing lock is already waiting. Wait for it, or use another queueing lock."""

    title = "Already queued"
    status = 409
    run_id: str | None = None
    """The run that waits, where the caller may see it."""


class WebhookNotFound(Refused):
    """There is no webhook endpoint with that id. `GET /webhooks` lists yours."""

    title = "Webhook endpoint not found"
    status = 404


class DeliveryNotFound(Refused):
    """This endpoint has no delivery with that id. `GET /webhooks/{id}/deliveries` lists those there are."""

    title = "Delivery not found"
    status = 404


class TooManyWebhooks(Refused):
    """You have as many webhook endpoints as there may be. Delete one that is not needed."""

    title = "Too many webhook endpoints"
    status = 409


class WebhookDisabled(Refused):
    """The endpoint is disabled, so nothing is sent to it. `POST /webhooks/{id}/enable` first."""

    title = "The webhook endpoint is disabled"
    status = 409


class DeliveryPending(Refused):
    """The delivery is still being attempted, so it cannot be started again. Wait for its end."""

    title = "The delivery has not ended"
    status = 409


class ScheduleNotFound(Refused):
    """There is no schedule of that name. `GET /schedules` lists those there are."""

    title = "Schedule not found"
    status = 404


class ScheduleExists(Refused):
    """There is a schedule of that name already. Delete it first, or take another name."""

    title = "The schedule exists"
    status = 409


class ScheduleDeclared(Refused):
    """The schedule is declared in the code, and would come back. Pause it, or take it out of the code."""

    title = "The schedule is declared in code"
    status = 409


class DeadLetterNotFound(Refused):
    """No failed run has that fingerprint. `GET /dead-letters` lists those there are."""

    title = "Dead letter not found"
    status = 404


class AdventureNotFound(Refused):
    """There is no adventure with that id. `GET /adventures` lists yours."""

    title = "Adventure not found"
    status = 404


class ChoiceNotFound(Refused):
    """The adventure has no such choice. `GET /adventures/{id}` shows those there are, at the end of each entry."""

    title = "Choice not found"
    status = 422


class ChoiceDecided(Refused):
    """It is decided how the adventure goes on there. Decide at the end of its newest entry."""

    title = "The choice is decided"
    status = 409


class FileNotFound(Refused):
    """There is no such file, or the URL is not signed, or its time is over. Ask for a new URL."""

    title = "File not found"
    status = 404


class NotUnique(Refused):
    """A run with the same unique key is there, as its `unique.scope` says. Wait for it: `run_id` names it."""

    title = "Not unique"
    status = 409
    run_id: str
    state: str


class NoResult(Refused):
    """The run has ended without a result: it failed or was cancelled. `error` says why."""

    title = "The run has no result"
    status = 409
    state: str
    error: dict[str, Any] | None = None


class IdempotencyKeyReused(Refused):
    """This `Idempotency-Key` was sent with another request. Use a new key for a new request."""

    title = "The idempotency key was used before"
    status = 422


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


class NotNow(Problem, abstract=True):
    """The request may succeed later; `Retry-After` says when to ask again."""

    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "Seconds to wait before asking again."}
    retry_after: NonNegativeInt = 1

    def response_headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after)}


class IdempotencyInFlight(NotNow):
    """The first request with this `Idempotency-Key` is being stored at this moment. Send it again a little later."""

    title = "The first request is in flight"
    status = 409


class RunNotFinished(NotNow):
    """The run has no result yet. Wait for its end: `GET /runs/{id}` with `Prefer: wait=30`, or its events."""

    title = "The run has not ended"
    status = 409
    state: str


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


class IssuerUnavailable(NotNow):
    """The token cannot be checked: whoever publishes the keys (`JWKS_URL`) does not answer."""

    title = "The token cannot be checked now"
    status = 503
    retry_after: NonNegativeInt = 5


class DatabaseUnavailable(NotNow):
    """PostgreSQL does not answer. Look whether what you sent was stored, and send it again if not."""

    title = "The database is not available"
    status = 503


class TooBusy(NotNow):
    """More is being submitted than the database can take at this moment. Nothing was stored: send it again later."""

    title = "Too busy"
    status = 503


class StorageUnavailable(NotNow):
    """The file storage does not take the file. Nothing was stored: send it again later."""

    title = "The file storage is not available"
    status = 503


class DatabaseBehind(NotNow):
    """The database schema is not the one this code needs. Run `runledger db upgrade`."""

    title = "The database schema is behind"
    status = 503
    retry_after: NonNegativeInt = 5


class InternalError(Problem):
    """A mistake of this program. Tell whoever runs it the `id`: the log has the cause under it."""

    title = "Internal error"
    status = 500
    id: str


class ActionError(Exception):
    """Raised by an action or by an outbound client: its class says whether to try again."""

    retryable: ClassVar[bool] = True


class Unavailable(ActionError):
    """The other side is down, slow or broken. Try again with backoff."""


class RateLimited(Unavailable):
    """The other side asks for patience.

    `retry_after` is in seconds.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Rejected(ActionError):
    """The other side said no, and will say no again. Do not retry."""

    retryable: ClassVar[bool] = False


class ChildFailed(Rejected):
    """A child that the run waited for has failed or was cancelled. To go on all the same, `gather` by "continue"."""


class SignalTimeout(Rejected):
    """The signal has not come in time. Catch it to do without; the run will not be told of it any more."""


class RunWaits(BaseException):
    """The run waits for its children or for a signal, and needs no worker meanwhile.

    A `BaseException`, so that an action's `except Exception` does not swallow it. When what it waits for has come, the
    action is called again, and finds its steps and its children stored.
    """


class RunLost(BaseException):
    """This worker no longer holds the run: another attempt does, or the run has ended.

    A `BaseException`, so that an action's `except Exception` does not swallow it. Nothing more may be written.
    """


class NotBegun(Exception):
    """The database did not give the run of a claimed job, so its action has not begun. No attempt was made."""


class ConfigurationError(Exception):
    """The process cannot start with these settings. The message says what to set."""
