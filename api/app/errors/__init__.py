"""Every error of Runledger, what it means to a caller, and its HTTP status.

::

    Problem                      rendered as an RFC 9457 document, by its class
    ├── Refused                  the request cannot be done; asking again will not help
    │   ├── MalformedRequest 400   UnreadableBody   400   InvalidCursor    400   InvalidEventId   400
    │   ├── TwoCredentials   400   InvalidIdempotencyKey 400   IdempotencyKeyMissing 400
    │   ├── Unauthorized     401   Forbidden        403
    │   ├── UnknownAction    404   RunNotFound      404   WebhookNotFound  404   DeliveryNotFound 404
    │   ├── AdventureNotFound 404  ChoiceNotFound   422  ChoiceDecided    409
    │   ├── ScheduleNotFound 404   DeadLetterNotFound 404  FileNotFound 404
    │   ├── RunFinal         409   RunNotFailed     409   AlreadyQueued    409   NotUnique 409   NoResult 409
    │   ├── SignalSent       409   ResultExpired    410
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
    │   └── StorageUnavailable 503   WebhooksUnavailable 503
    └── InternalError        500   our mistake; the log has the cause, under the id that the answer has

    ActionError                  what an action or an outbound client raises
    ├── Unavailable              the other side is down or slow: retry with backoff
    │   └── RateLimited          … and it asks for patience: wait until then, no attempt used
    └── Rejected                 the other side said no: do not retry
        └── ChildFailed   SignalTimeout   what the run waited for has failed, or has not come

    NotBegun                     the action has not begun: put it back
    RunWaits                     the run waits: this attempt ends here, and goes on from the top
    RunLost                      this worker no longer holds the run: stop quietly
    ConfigurationError           the process cannot start like this; the message says what to set
"""

from app.errors.kinds import NotNow, Refused
from app.errors.outages import (
    DatabaseBehind,
    DatabaseUnavailable,
    InternalError,
    IssuerUnavailable,
    StorageUnavailable,
    TooBusy,
    WebhooksUnavailable,
)
from app.errors.requests import (
    BodyTooLarge,
    Fault,
    Forbidden,
    HeadersTooLarge,
    IdempotencyKeyMissing,
    InvalidCursor,
    InvalidEventId,
    InvalidIdempotencyKey,
    InvalidInput,
    MalformedRequest,
    QuotaExceeded,
    RequestTooSlow,
    TooManyRequests,
    TwoCredentials,
    Unauthorized,
    UnreadableBody,
    UnsupportedMediaType,
    UrlTooLong,
)
from app.errors.runs import (
    AlreadyQueued,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    NoResult,
    NotUnique,
    ResultExpired,
    RunFinal,
    RunNotFailed,
    RunNotFinished,
    RunNotFound,
    SignalSent,
    UnknownAction,
)
from app.errors.things import (
    AdventureNotFound,
    ChoiceDecided,
    ChoiceNotFound,
    DeadLetterNotFound,
    DeliveryNotFound,
    DeliveryPending,
    FileNotFound,
    ScheduleDeclared,
    ScheduleExists,
    ScheduleNotFound,
    TooManyWebhooks,
    WebhookDisabled,
    WebhookNotFound,
)
from app.errors.work import (
    ActionError,
    ChildFailed,
    ConfigurationError,
    NotBegun,
    RateLimited,
    Rejected,
    RunLost,
    RunWaits,
    SignalTimeout,
    Unavailable,
)

__all__ = [
    "ActionError",
    "AdventureNotFound",
    "AlreadyQueued",
    "BodyTooLarge",
    "ChildFailed",
    "ChoiceDecided",
    "ChoiceNotFound",
    "ConfigurationError",
    "DatabaseBehind",
    "DatabaseUnavailable",
    "DeadLetterNotFound",
    "DeliveryNotFound",
    "DeliveryPending",
    "Fault",
    "FileNotFound",
    "Forbidden",
    "HeadersTooLarge",
    "IdempotencyInFlight",
    "IdempotencyKeyMissing",
    "IdempotencyKeyReused",
    "InternalError",
    "InvalidCursor",
    "InvalidEventId",
    "InvalidIdempotencyKey",
    "InvalidInput",
    "IssuerUnavailable",
    "MalformedRequest",
    "NoResult",
    "NotBegun",
    "NotNow",
    "NotUnique",
    "QuotaExceeded",
    "RateLimited",
    "Refused",
    "Rejected",
    "RequestTooSlow",
    "ResultExpired",
    "RunFinal",
    "RunLost",
    "RunNotFailed",
    "RunNotFinished",
    "RunNotFound",
    "RunWaits",
    "ScheduleDeclared",
    "ScheduleExists",
    "ScheduleNotFound",
    "SignalSent",
    "SignalTimeout",
    "StorageUnavailable",
    "TooBusy",
    "TooManyRequests",
    "TooManyWebhooks",
    "TwoCredentials",
    "Unauthorized",
    "Unavailable",
    "UnknownAction",
    "UnreadableBody",
    "UnsupportedMediaType",
    "UrlTooLong",
    "WebhookDisabled",
    "WebhookNotFound",
    "WebhooksUnavailable",
]
