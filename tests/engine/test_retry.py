"""When to try again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from procrastinate.jobs import Job

from app.engine.retry import LONGEST_RETRY_AFTER_SECONDS, MAX_SNOOZES, SPREAD, Retry, RetryTable
from app.errors import RateLimited, Rejected, Unavailable

RETRY = Retry(max_attempts=4, base=2, cap=10)


@given(attempts=st.integers(1, 3), seed=st.integers())
def test_the_wait_is_anywhere_below_the_exponential_and_the_cap(attempts: int, seed: int) -> None:
    random.seed(seed)
    delay = RETRY.delay(Unavailable(), attempts=attempts)
    assert delay is not None
    assert 0 <= delay <= min(10, 2 * 2 ** (attempts - 1))


def test_the_waits_spread_over_the_whole_range() -> None:
    random.seed(1)
    waits = [Retry(base=8).delay(Unavailable(), attempts=1) or 0 for _ in range(2000)]
    assert min(waits) < 0.5
    assert max(waits) > 7.5


def test_after_the_last_attempt_there_is_no_next() -> None:
    assert RETRY.delay(Unavailable(), attempts=4) is None


def test_an_error_that_is_final_is_final() -> None:
    assert RETRY.delay(Rejected(), attempts=1) is None


def test_the_error_says_how_long_but_not_for_ever() -> None:
    assert (RETRY.delay(RateLimited("x", retry_after=30), attempts=1) or 0) == 30
    assert (RETRY.delay(RateLimited("x", retry_after=99_999), attempts=1) or 0) == LONGEST_RETRY_AFTER_SECONDS


@given(asked=st.floats(0, 10**6), snoozes=st.integers(0, MAX_SNOOZES - 1), seed=st.integers())
def test_who_is_asked_to_wait_waits_that_long_and_a_tenth_more_at_most(asked: float, snoozes: int, seed: int) -> None:
    random.seed(seed)
    delay = RETRY.snooze(RateLimited("x", retry_after=asked), snoozes=snoozes)
    least = min(asked, LONGEST_RETRY_AFTER_SECONDS)
    assert delay is not None
    assert least <= delay <= max(least * (1 + SPREAD), RETRY.cap)


def test_those_who_are_asked_to_wait_alike_do_not_come_back_together() -> None:
    random.seed(1)
    waits = [RETRY.snooze(RateLimited("x", retry_after=600), snoozes=0) or 0 for _ in range(2000)]
    assert (min(waits) < 601, max(waits) > 659) == (True, True)


def test_who_is_not_told_how_long_waits_longer_each_time() -> None:
    random.seed(1)
    waits = [
        max(Retry(cap=300).snooze(RateLimited("x", retry_after=0), snoozes=made) or 0 for _ in range(200))
        for made in range(6)
    ]
    assert waits == sorted(waits)
    assert waits[-1] > 25


def test_patience_has_an_end_and_other_errors_ask_for_none() -> None:
    busy = RateLimited("x", retry_after=1)
    assert RETRY.snooze(busy, snoozes=MAX_SNOOZES - 1) is not None
    assert RETRY.snooze(busy, snoozes=MAX_SNOOZES) is None
    assert RETRY.snooze(Unavailable(), snoozes=0) is None
    assert RETRY.snooze(Rejected(), snoozes=0) is None


@pytest.mark.parametrize(("error", "retried"), [(KeyError(), False), (IndexError(), True), (ValueError(), True)])
def test_the_most_specific_rule_decides(error: Exception, retried: bool) -> None:
    retry = Retry(rules={LookupError: Retry(max_attempts=9), KeyError: None})
    assert (retry.delay(error, attempts=1) is not None) is retried


def test_a_rule_has_its_own_number_of_attempts() -> None:
    retry = Retry(max_attempts=2, rules={LookupError: Retry(max_attempts=9)})
    assert retry.delay(LookupError(), attempts=5) is not None
    assert retry.delay(ValueError(), attempts=5) is None


@pytest.mark.parametrize(
    ("own", "made", "retried"),
    [(2, 1, True), (2, 2, False), (9, 5, True), (None, 2, True), (None, 3, False), (3, 2, True)],
)
def test_a_runs_own_number_of_attempts_holds(own: int | None, made: int, retried: bool) -> None:
    assert (Retry(max_attempts=3).delay(Unavailable(), attempts=made, own=own) is not None) is retried


def test_what_the_action_says_of_an_error_holds_for_a_run_that_says_nothing_else() -> None:
    retry = Retry(max_attempts=3, rules={LookupError: Retry(max_attempts=9)})
    assert retry.delay(LookupError(), attempts=5, own=3) is not None
    assert retry.delay(LookupError(), attempts=5, own=4) is None


def test_the_last_wait_of_a_table_comes_again_for_who_may_try_more_often() -> None:
    table = RetryTable(waits=(1, 60), spread=0)
    assert [table.delay(Unavailable(), attempts=made, own=5) for made in range(1, 6)] == [1, 60, 60, 60, None]


def group(*errors: Exception) -> ExceptionGroup:
    """As a task group in a task group raises it."""
    return ExceptionGroup("outer", [ExceptionGroup("inner", errors)])


def test_a_group_that_is_asked_to_wait_waits_for_the_longest() -> None:
    busy = group(RateLimited("x", retry_after=30), RateLimited("x", retry_after=600))
    assert 600 <= (RETRY.snooze(busy, snoozes=0) or 0) <= 660
    assert RETRY.snooze(busy, snoozes=MAX_SNOOZES) is None


@pytest.mark.parametrize("other", [Unavailable(), Rejected(), KeyError()])
def test_a_group_with_another_error_in_it_uses_an_attempt(other: Exception) -> None:
    assert RETRY.snooze(group(RateLimited("x", retry_after=30), other), snoozes=0) is None


def test_a_group_is_retried_when_the_most_patient_of_its_errors_says_unless_one_is_final() -> None:
    retry = Retry(max_attempts=4, rules={KeyError: None, IndexError: Retry(max_attempts=2)})
    assert (retry.delay(group(RateLimited("x", retry_after=300), Unavailable()), attempts=1) or 0) >= 300
    for final in (Rejected(), KeyError()):
        assert retry.delay(group(RateLimited("x", retry_after=300), final), attempts=1) is None
    rare = group(IndexError(), Unavailable())
    assert [retry.delay(rare, attempts=made) is not None for made in (1, 2)] == [True, False]


def test_a_long_life_does_not_overflow() -> None:
    assert Retry(max_attempts=10**9).delay(Unavailable(), attempts=10**6) is not None


def test_procrastinate_sees_an_ordinary_strategy() -> None:
    job = Job(id=1, queue="q", lock=None, queueing_lock=None, task_name="t", attempts=0)
    decision = RETRY.get_retry_decision(exception=Unavailable(), job=job)
    assert decision is not None
    assert decision.retry_at is not None
