"""What ends a command early."""

from __future__ import annotations

WRONG_SETTINGS = 78
INTERRUPTED = 130


class Failure(Exception):
    """A command cannot do what was asked, told to the person who asked.

    `message` is what is wrong, `advice` what to do next, `code` the exit code.
    """

    def __init__(self, message: str, advice: str | None = None, *, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.code = code


class NotReached(Failure):
    """The API does not answer now; asking again may help."""


def as_failure(error: Exception) -> Failure | None:
    """What to tell about an error; `None` if it is our mistake, and its traceback is what helps."""
    if isinstance(error, Failure):
        return error
    # Imported only now: most commands end without.
    from app.errors import ConfigurationError

    return Failure(str(error), code=WRONG_SETTINGS) if isinstance(error, ConfigurationError) else None
