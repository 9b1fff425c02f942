"""When each service or site may be asked next, by all runs of a worker together."""

from __future__ import annotations

import asyncio
from collections import Counter
from weakref import WeakSet

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

REMEMBERED = 1000
"""Sites. Beyond that, those whose time has come are forgotten."""

_meter = metrics.get_meter("runledger.outbound")
_waits = _meter.create_histogram(
    "runledger.outbound.wait",
    unit="s",
    description="How long calls have waited for their turn, by vendor; requests of the web are those of one",
    explicit_bucket_boundaries_advisory=[0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0],
)


class Pace:
    """Hands out turns, one site's at least so many seconds apart."""

    def __init__(self, vendor: str) -> None:
        """`vendor` is what metrics call whoever is asked, all sites together."""
        self.vendor = vendor
        self.waiting = 0
        """How many wait for their turn now."""
        self._next: dict[str, float] = {}
        _all.add(self)

    async def turn(self, site: str, seconds: float) -> None:
        """Wait until it is the caller's turn; the next one comes `seconds` later."""
        now = asyncio.get_running_loop().time()
        begin = max(now, self._next.get(site, now))
        if len(self._next) >= REMEMBERED:
            self._next = {site: at for site, at in self._next.items() if at > now}
        self._next[site] = begin + seconds
        if begin > now:
            await self._wait(begin - now)
        _waits.record(begin - now, {"vendor": self.vendor})

    async def _wait(self, seconds: float) -> None:
        self.waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.waiting -= 1


_all = WeakSet[Pace]()


def _observe(_: CallbackOptions) -> list[Observation]:
    waiting = Counter[str]()
    for pace in _all:
        waiting[pace.vendor] += pace.waiting
    return [Observation(count, {"vendor": vendor}) for vendor, count in waiting.items()]


_meter.create_observable_gauge(
    "runledger.outbound.calls_waiting",
    [_observe],
    unit="{call}",
    description="Calls that wait for their turn, by vendor",
)
