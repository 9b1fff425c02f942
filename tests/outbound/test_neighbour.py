"""A service that fails is left alone for a while, and none is called faster than it wishes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import time_machine
from pydantic import BaseModel

from app.config import Settings
from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.anthropic.client import open_anthropic_client
from app.outbound.deepl.client import open_deepl_client
from app.outbound.gemini.client import open_gemini_client
from app.outbound.neighbour import FAILURES, RECOVERY_SECONDS, Neighbour
from app.outbound.pace import Pace
from app.outbound.stubs import Stubs

Ask = Callable[[Settings, Stubs], Awaitable[None]]


class Said(BaseModel):
    """Anything."""

    text: str


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
    neighbour = Neighbour("oracle", per_minute=6)
    for _ in range(4):
        await call(neighbour)
    assert [round(pause, -1) for pause in pauses] == [10, 20, 30]


async def ask_claude(settings: Settings, stubs: Stubs) -> None:
    async with open_anthropic_client(settings, stubs) as claude:
        await claude.write(instructions="x", prompt="y", output=Said)


async def ask_deepl(settings: Settings, stubs: Stubs) -> None:
    async with open_deepl_client(settings, stubs) as deepl:
        await deepl.translate("Hello.", source="en", target="de")


async def ask_gemini(settings: Settings, stubs: Stubs) -> None:
    async with open_gemini_client(settings, stubs) as gemini:
        await gemini.speak("Hello.", "en")


@pytest.mark.parametrize(("vendor", "ask"), [("anthropic", ask_claude), ("deepl", ask_deepl), ("gemini", ask_gemini)])
async def test_a_service_is_called_as_often_as_the_settings_say(
    keyless: Settings, stubs: Stubs, vendor: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[tuple[str, float]] = []

    async def turn(pace: Pace, _: str, seconds: float) -> None:
        turns.append((pace.vendor, seconds))

    monkeypatch.setattr(Pace, "turn", turn)
    await ask(keyless, stubs)
    assert turns == []
    await ask(keyless.model_copy(update={f"{vendor}_per_minute": 30}), stubs)
    assert turns == [(vendor, 2)]
