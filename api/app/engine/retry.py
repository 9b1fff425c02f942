"""When to try again: full jitter, a cap, what the error itself says, and errors that are final or use no attempt."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from procrastinate import jobs
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from typing_extensions import override

from app.engine.claims import ClaimedJob

LONGEST_RETRY_AFTER_SECONDS = 900.0
"""A server that asks for more patience than this is asked again anyway."""
MAX_SNOOZES = 100
"""Every run ends: after so many, asking for patience uses attempts. At the longest patience that is a day."""
SPREAD = 0.1
"""Who was told to come back at one time comes up to this share later, so that not all are there at once."""


@dataclass(frozen=True)
class Retry(BaseRetryStrategy):
    """Exponential backoff with full jitter.

    The wait before attempt n+1 is uniform in 0 … min(`cap`, `base` · 2ⁿ⁻¹) seconds
    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), but at least what the error's
    `retry_after` says. An error whose `retryable` is false is final; one whose `uses_attempt` is false is waited for,
    likewise, without an attempt being used.

    Of a group, such as a `TaskGroup` raises, each error has its say: one that is final makes the group final, one that
    uses an attempt has it use one, and the longest wait is waited.
    """

    max_attempts: int = 5
    """How often a run is tried in all."""
    base: float = 1.0
    cap: float = 300.0
    rules: Mapping[type[BaseException], Retry | None] = field(default_factory=dict)
    """Another strategy for some errors; `None`: do not retry. The most specific class decides."""

    @override
    def get_retry_decision(self, *, exception: BaseException, job: jobs.Job) -> RetryDecision | None:
        own = job.max_attempts if isinstance(job, ClaimedJob) else None
        delay = self.delay(exception, attempts=job.attempts + 1, own=own)
        return None if delay is None else RetryDecision(retry_in={"milliseconds": round(delay * 1000)})

    def delay(self, error: BaseException, *, attempts: int, own: int | None = None) -> float | None:
        """Seconds to wait after `attempts` attempts have been made, or `None` to stop.

        `own` is the run's own number of attempts, which every run is stored with: where it is not this strategy's, its
        submission asked for it, and it holds whatever the error.
        """
        return _longest([self._delay(each, attempts, own) for each in leaves(error)])

    def snooze(self, error: BaseException, *, snoozes: int) -> float | None:
        """Seconds to wait without using an attempt, or `None`: it uses one.

        `snoozes` is how often the run was snoozed before. Where the error does not say how long, the waits grow as
        those of attempts do.
        """
        return _longest([self._snooze(each, snoozes) for each in leaves(error)])

    def jittered(self, attempts: int) -> float:
        """Seconds to wait after so many attempts, whatever the error was."""
        return random.uniform(0, min(self.cap, self.base * 2 ** min(attempts - 1, 62)))

    def _delay(self, error: BaseException, attempts: int, own: int | None) -> float | None:
        strategy = self._for(error)
        if strategy is None:
            return None
        if attempts >= (strategy.max_attempts if own in (None, self.max_attempts) else own):
            return None
        return max(strategy.jittered(attempts), _asked_for(error))

    def _snooze(self, error: BaseException, snoozes: int) -> float | None:
        strategy = self._for(error)
        if strategy is None or getattr(error, "uses_attempt", True) or snoozes >= MAX_SNOOZES:
            return None
        return max(strategy.jittered(snoozes + 1), _asked_for(error) * random.uniform(1, 1 + SPREAD))

    def _for(self, error: BaseException) -> Retry | None:
        if not getattr(error, "retryable", True):
            return None
        for kind in type(error).__mro__:
            if kind in self.rules:
                return self.rules[kind]
        return self


@dataclass(frozen=True)
class RetryTable(Retry):
    """Waits that somebody has written down, each up to `spread` longer; one attempt more than there are waits.

    A run that may be tried more often waits the last one again.
    """

    waits: tuple[float, ...] = ()
    """Seconds."""
    spread: float = 0.1
    max_attempts: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_attempts", len(self.waits) + 1)

    @override
    def jittered(self, attempts: int) -> float:
        return self.waits[min(attempts, len(self.waits)) - 1] * random.uniform(1, 1 + self.spread)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group, and of the groups in it; of any other error itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def _longest(waits: list[float | None]) -> float | None:
    told = [wait for wait in waits if wait is not None]
    return max(told) if len(told) == len(waits) else None


def _asked_for(error: BaseException) -> float:
    # Other libraries' errors have an attribute of that name too, and not always a number in it.
    seconds = getattr(error, "retry_after", None)
    return min(float(seconds), LONGEST_RETRY_AFTER_SECONDS) if isinstance(seconds, int | float) else 0.0
