"""Limits: how many jobs of a task may run at once, and how often one may start, over all workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """A token bucket: `count` starts every `seconds`, and up to `burst` at once after a pause.

    In no span of `t` seconds do more than `burst + t * count / seconds` start. `burst` is `count` if not given; with 1,
    starts keep their distance.
    """

    count: int
    seconds: float
    burst: int | None = None


@dataclass(frozen=True)
class Limit:
    """What the jobs of a task may take together.

    `concurrency` is how many run at once. `by` names a parameter: each of its values is then limited by itself.
    """

    concurrency: int | None = None
    rate: Rate | None = None
    by: str | None = None

    def check(self) -> None:
        """Refuse a limit that means nothing.

        Raises:
            ValueError: the message names what is wrong.
        """
        if self.concurrency is None and self.rate is None:
            raise ValueError("A limit has a concurrency, a rate, or both.")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"A limit's concurrency is 1 or more, not {self.concurrency!r}.")
        if self.rate is not None and (
            self.rate.count < 1 or self.rate.seconds <= 0 or (self.rate.burst is not None and self.rate.burst < 1)
        ):
            raise ValueError(f"A rate is 1 or more in more than 0 seconds, and its burst 1 or more, not {self.rate!r}.")

    @property
    def seconds_a_start(self) -> float | None:
        """How long it takes until one more may start."""
        return None if self.rate is None else self.rate.seconds / self.rate.count

    @property
    def burst(self) -> int | None:
        """How many may start at once after a pause."""
        return None if self.rate is None else self.rate.burst or self.rate.count
