"""A service that fails is left alone for a while, and none is called faster than it wishes."""

from __future__ import annotations

import asyncio

import pytest
import time_machine

from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.neighbour import FAILURES, RECOVERY_SECONDS, Neighbour


async def call(neighbour: Neighbour, error: BaseException | None = None) -> None:
    async with neighbour.call():
        if error is not None:
            raise error


async def test_a_service_that_failed_in_a_row_is_not_called_until_it_is_said() -> None:
    neighbour = Neighbour("oracle")
    with time_machine.travel(1_766_000_000.0, tick=False) as clock:  # 19:33:20 UTC
        for _ in range(FAILURES):
            with pytest.raises(Unavailable, match="it is down"):
                await call(neighbour, Unavailable("it is down"))
        assert neighbour.circuit == "opened"
        clock.shift(10)
        with pytest.raises(RateLimited) as raised:
            await call(neighbour)
        assert str(raised.value) == "oracle has failed 5 times in a row and is left alone until 19:33:50 UTC."
        assert raised.value.retry_after == RECOVERY_SECONDS - 10, "until then, a run would be tried in vain"
        clock.shift(RECOVERY_SECONDS)
        await call(neighbour)


@pytest.mark.parametrize(
    "error",
    [Rejected("no"), RateLimited("later", retry_after=1), asyncio.CancelledError()],
    ids=lambda e: type(e).__name__,
)
async def test_an_answer_is_no_failure(error: BaseException) -> None:
    neighbour = Neighbour("oracle")
    for _ in range(2 * FAILURES):
        with pytest.raises(type(error)):
            await call(neighbour, error)
    assert neighbour.circuit == "closed"
    await call(neighbour)


async def test_a_success_forgives_the_failures_before_it() -> None:
    neighbour = Neighbour("oracle")
    for _ in range(3):
        for _ in range(FAILURES - 1):
            with pytest.raises(Unavailable):
                await call(neighbour, Unavailable("it is down"))
        await call(neighbour)
    assert neighbour.circuit == "closed"


async def test_calls_begin_no_faster_than_the_service_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("app.outbound.pace.asyncio.sleep", note)
    neighbour = Neighbour("oracle", per_second=0.1)
    for _ in range(4):
        await call(neighbour)
    assert [round(pause, -1) for pause in pauses] == [10, 20, 30]
