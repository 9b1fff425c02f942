"""What actions and outbound clients raise, and what ends an attempt or a process."""

from __future__ import annotations

from typing import ClassVar


class ActionError(Exception):
    """Raised by an action or by an outbound client: its class says whether to try again."""

    retryable: ClassVar[bool] = True
    uses_attempt: ClassVar[bool] = True
    """Whether a try that ends like this counts; if not, the run is snoozed: it waits, the attempt given back."""


class Unavailable(ActionError):
    """The other side is down, slow or broken. Try again with backoff."""


class RateLimited(Unavailable):
    """The other side asks for patience. The run waits that long, and no attempt is used.

    `retry_after` is in seconds; 0 where it did not say.
    """

    uses_attempt: ClassVar[bool] = False

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
