"""Token buckets: so many at once, refilled evenly.

In memory and by process. A limit that all API processes share would cost every request a round trip, and what it
protects, the database, is what it would burden. `limits` has windows, which let through twice as many where two meet,
and its memory costs a request ten times as much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """How a bucket stands after somebody has come."""

    is_served: bool
    left: int
    """Whole tokens."""
    seconds: int
    """Until there is one more, at least 1."""


class Buckets:
    """A bucket a name, full when the name is new.

    Args:
        amount: tokens in a full bucket.
        seconds: in which an empty one fills.
    """

    def __init__(self, amount: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.amount = amount
        self.seconds = seconds
        self._each = seconds / amount
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._next_look = clock() + seconds

    def take(self, name: str) -> Standing:
        """Take a token, if there is one."""
        now = self._clock()
        missing = self._missing(name, now)
        is_served = missing <= self.seconds - self._each
        if is_served:
            missing += self._each
            self._full_at[name] = now + missing
        left = int((self.seconds - missing) / self._each + 1e-9)
        until_one_more = missing - (self.amount - left - 1) * self._each
        return Standing(is_served, left, max(math.ceil(until_one_more), 1))

    def seconds_until_one(self, name: str) -> int:
        """0 while there is a token; nothing is taken."""
        missing = self._missing(name, self._clock())
        return max(math.ceil(missing - self.seconds + self._each), 0)

    def _missing(self, name: str, now: float) -> float:
        """How long the bucket takes to be full: what was taken from it, in seconds."""
        if now >= self._next_look:
            # A full bucket is one that nobody needs to remember.
            self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
            self._next_look = now + self.seconds
        return max(self._full_at.get(name, now) - now, 0.0)
