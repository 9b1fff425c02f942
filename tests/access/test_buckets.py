"""Token buckets: a burst, then evenly, and never one too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.access.buckets import Buckets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_full_bucket_is_a_burst_and_then_there_is_one_each_so_often() -> None:
    clock = Clock()
    buckets = Buckets(3, 60, clock)
    assert [buckets.take("ada").left for _ in range(3)] == [2, 1, 0]
    refused = buckets.take("ada")
    assert (refused.is_served, refused.left, refused.seconds) == (False, 0, 20)
    assert buckets.seconds_until_one("ada") == 20
    assert buckets.take("bob").is_served
    clock.now += 19.9
    assert not buckets.take("ada").is_served
    clock.now += 0.1
    assert buckets.seconds_until_one("ada") == 0
    assert [buckets.take("ada").is_served for _ in range(2)] == [True, False]


def test_who_has_not_come_for_long_is_forgotten() -> None:
    clock = Clock()
    buckets = Buckets(3, 60, clock)
    for n in range(100):
        buckets.take(str(n))
    clock.now += 60
    buckets.take("new")
    assert list(buckets._full_at) == ["new"]


@given(st.lists(st.floats(0, 30), min_size=1, max_size=200), st.integers(1, 20))
def test_whatever_the_rhythm_no_window_serves_more_than_a_burst_and_what_refills(
    pauses: list[float], amount: int
) -> None:
    clock = Clock()
    buckets = Buckets(amount, 60, clock)
    served: list[float] = []
    for pause in pauses:
        clock.now += pause
        standing = buckets.take("ada")
        assert 0 <= standing.left <= amount
        assert standing.seconds >= 1
        if standing.is_served:
            served.append(clock.now)
    for first in range(len(served)):
        for last in range(first, len(served)):
            assert last - first + 1 <= amount + (served[last] - served[first]) * amount / 60 + 1e-6
