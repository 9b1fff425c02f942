"""What ends a command early."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runledger_client import Problem

WRONG_SETTINGS = 78
INTERRUPTED = 130

_ADVICE = {
    "unauthorized": "Set ROADMAP_AI_SECRET to the secret that the API was started with.",
    "unknown-action": "List those there are with: runledger actions",
    "run-not-found": "List those there are with: runledger runs list",
    "run-final": "Read it with: runledger runs get ID",
    "database-behind": "Run on the API's machine: runledger db upgrade",
}


class Failure(Exception):
    """A command cannot do what was asked, told to the person who asked.

    `message` is what is wrong, `advice` what to do next, `code` the exit code.
    """

    def __init__(self, message: str, advice: str | None = None, *, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.code = code


def as_failure(error: Exception) -> Failure | None:
    """What to tell about an error; `None` if it is our mistake, and its traceback is what helps."""
    if isinstance(error, Failure):
        return error
    # Imported only now: most commands end without.
    from app.errors import ConfigurationError
    from runledger_client import NotRunledger, Refused, Unreachable

    match error:
        case ConfigurationError():
            return Failure(str(error), code=WRONG_SETTINGS)
        case Unreachable():
            return Failure(str(error), "Start it with: runledger up — or say where it is with RUNLEDGER_URL.")
        case NotRunledger():
            return Failure(str(error), "Say where the API is with RUNLEDGER_URL.")
        case Refused():
            return _refused(error.problem)
        case _:
            return None


def _refused(problem: Problem) -> Failure:
    faults = [f"  {fault.pointer}: {fault.detail}" for fault in problem.errors]
    return Failure("\n".join([str(problem), *faults]), _ADVICE.get(problem.slug))
