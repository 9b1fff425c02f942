"""What the client raises.

::

    ClientError
    ├── Unreachable      nothing answers there: is the API running, is the URL right?
    ├── NotRunledger     what answers there is something else: is the URL right?
    ├── Refused          the API said no; `problem` says why, and asking again will not help
    │   └── TryLater     … for now: `retry_after` seconds
    └── RunFailed        the run ended without a result; `run` says how
"""

from __future__ import annotations

from runledger_client.models import Problem, Run


class ClientError(Exception):
    """Whatever keeps the client from what was asked."""


class Unreachable(ClientError):
    """The API does not answer, or broke off. A submission may have been stored all the same."""


class NotRunledger(ClientError):
    """Something answers at this URL, but not as Runledger's API does.

    `status` is its HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Refused(ClientError):
    """The API said no.

    `problem` says why, `status` is the HTTP status.
    """

    def __init__(self, problem: Problem, status: int) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.status = status


class TryLater(Refused):
    """The API said: not now. `retry_after` is in seconds."""

    def __init__(self, problem: Problem, status: int, retry_after: float) -> None:
        super().__init__(problem, status)
        self.retry_after = retry_after


class RunFailed(ClientError):
    """The run failed or was cancelled, so it has no result."""

    def __init__(self, run: Run) -> None:
        super().__init__(f"{run.id} {run.state}: {run.error}" if run.error else f"{run.id} {run.state}")
        self.run = run
