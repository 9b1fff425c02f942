"""One service of other people: not called faster than it wishes, and left alone for a while when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Literal, get_args
from weakref import WeakSet

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

from app.errors import ActionError, RateLimited, Rejected
from app.outbound.pace import Pace

FAILURES = 5
"""So many one after the other open the circuit."""
RECOVERY_SECONDS = 30.0
"""An open circuit lets one call through after this, and closes if it succeeds."""

Circuit = Literal["closed", "half-opened", "opened"]

_meter = metrics.get_meter("runledger.outbound")
_calls = _meter.create_counter(
    "runledger.outbound.calls", unit="{call}", description="Calls of other people's services, by vendor and outcome"
)
_neighbours = WeakSet["Neighbour"]()


class Neighbour:
    """The circuit breaker and the pace of one service. One for each client; shared by the runs of a worker."""

    def __init__(self, name: str, *, per_minute: float | None = None) -> None:
        """`per_minute`: how many calls may begin in a minute, one after the other; `None`: any number."""
        self.name = name
        self._pause = 60 / per_minute if per_minute else None
        self._pace = Pace(name)
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=FAILURES,
            default_ttl=RECOVERY_SECONDS,
            exclude=[RateLimited, Rejected, asyncio.CancelledError],
        )
        self.circuit: Circuit = "closed"
        _neighbours.add(self)

    @contextlib.asynccontextmanager
    async def call(self) -> AsyncGenerator[None]:
        """Around one call of the service, in which its own errors have become `ActionError`s.

        Raises:
            RateLimited: it has failed so often that it is not called now.
        """
        breaker = await self._breakers.get_breaker(self.name)
        outcome = "failed"
        try:
            async with breaker:
                if self._pause is not None:
                    await self._pace.turn(self.name, self._pause)
                yield
            outcome = "succeeded"
        except OpenedState as opened:
            outcome = "not_called"
            raise left_alone(self.name, opened) from None
        except ActionError as error:
            outcome = _outcome(error)
            raise
        finally:
            self.circuit = breaker.context.state
            _calls.add(1, {"vendor": self.name, "outcome": outcome})


def left_alone(name: str, opened: OpenedState) -> RateLimited:
    """It is not called, and when it is again: a run that was tried before would be tried in vain."""
    until = opened.opened_at + RECOVERY_SECONDS
    return RateLimited(
        f"{name} has failed {FAILURES} times in a row and is left alone "
        f"until {datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC.",
        retry_after=max(until - time.time(), 0.0),
    )


def _observe(_: CallbackOptions) -> list[Observation]:
    states = get_args(Circuit)
    return [Observation(states.index(each.circuit), {"vendor": each.name}) for each in _neighbours]


# One for all: a name belongs to one instrument.
_meter.create_observable_gauge(
    "runledger.outbound.circuit",
    [_observe],
    description="State of a circuit breaker: 0 closed, 1 half open, 2 opened",
)


def _outcome(error: ActionError) -> str:
    match error:
        case RateLimited():
            return "rate_limited"
        case Rejected():
            return "rejected"
        case _:
            return "unavailable"
