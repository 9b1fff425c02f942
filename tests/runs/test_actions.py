"""Adding an action is one function: its hints are its schema."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.errors import InvalidInput, UnknownAction
from app.runs.context import Run


class Order(BaseModel):
    """A module-level model, as hints are resolved by name."""

    item: str
    count: int = 1


class Receipt(BaseModel):
    item: str
    total: float


async def test_the_parameters_of_the_function_are_the_input(workshop: Workshop) -> None:
    @workshop.action("text.repeat")
    async def repeat(run: Run, text: str, times: Annotated[int, Field(ge=1)] = 2) -> str:
        """Say it again."""
        return text * times

    action = workshop.action["text.repeat"]
    assert action.description == "Say it again."
    assert action.input.model_json_schema()["required"] == ["text"]
    assert action.output.json_schema() == {"type": "string"}
    run = await workshop.submit("text.repeat", text="ha")
    await workshop.drain()
    assert (await workshop.get(run)).result == "haha"


async def test_a_model_can_be_the_input(workshop: Workshop) -> None:
    @workshop.action()
    async def order(params: Order) -> Receipt:
        return Receipt(item=params.item, total=params.count * 1.5)

    run = await workshop.submit("order", item="tea", count=2)
    assert run.params == {"item": "tea", "count": 2}
    await workshop.drain()
    assert (await workshop.get(run)).result == {"item": "tea", "total": 3.0}


async def test_what_was_not_sent_is_not_stored(workshop: Workshop) -> None:
    @workshop.action()
    async def order(params: Order) -> None: ...

    assert (await workshop.submit("order", item="tea")).params == {"item": "tea"}


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({}, "/params/text"),
        ({"text": 1}, "/params/text"),
        ({"text": "x", "times": 0}, "/params/times"),
        ({"text": "x", "more": 1}, "/params/more"),
        ({"text": "a\x00b"}, "/params/text"),
        ({"text": "\ud800"}, "/params/text"),
        ({"text": "x", "times": 1e400}, "/params/times"),
        ({"text": "x", "times": 10**30}, "/params/times"),
        ({"te/xt~": "x", "text": "x"}, "/params/te~1xt~0"),
    ],
)
def test_params_that_do_not_fit_are_refused_with_a_pointer_and_without_the_value(
    workshop: Workshop, params: dict[str, Any], pointer: str
) -> None:
    @workshop.action()
    async def repeat(text: str, times: Annotated[int, Field(ge=1)] = 2) -> None: ...

    with pytest.raises(InvalidInput) as refused:
        workshop.action["repeat"].check(params)
    assert pointer in [fault.pointer for fault in refused.value.errors]


async def test_params_of_a_job_that_nobody_checked_fail_the_run_at_once(workshop: Workshop) -> None:
    @workshop.action()
    async def repeat(text: str) -> None: ...

    await workshop.action["repeat"].task.defer_async(text=["secret"])
    await workshop.drain()
    (row,) = await workshop.fetch("SELECT state, error FROM action_runs")
    assert row["state"] == "failed"
    assert row["error"]["type"] == "/problems/invalid-input"
    assert row["error"]["errors"][0]["pointer"] == "/params/text"
    assert "secret" not in str(row["error"])


@pytest.mark.parametrize("result", [10**30, object(), "a\x00b", {"deep": ["\ud800"]}])
async def test_a_result_that_cannot_be_stored_fails_the_run(workshop: Workshop, result: Any) -> None:
    @workshop.action(retry=Retry(max_attempts=1))
    async def strange() -> Any:
        return result

    run = await workshop.submit("strange")
    await workshop.drain()
    assert (await workshop.get(run)).state == "failed"


def test_a_function_without_hints_is_refused_with_the_name_of_what_is_missing(workshop: Workshop) -> None:
    with pytest.raises(TypeError, match="'greet': name needs a type hint"):

        @workshop.action()
        async def greet(name) -> str:
            return name

    with pytest.raises(TypeError, match="'greet': return needs a type hint"):

        @workshop.action()
        async def greet(name: str):
            return name


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a:b", "a b", "x" * 65])
def test_a_name_that_cannot_be_one_is_refused(workshop: Workshop, name: str) -> None:
    with pytest.raises(ValueError, match="An action's name"):

        @workshop.action(name or " ")
        async def nameless() -> None: ...


def test_an_action_that_is_not_there_is_unknown(workshop: Workshop) -> None:
    with pytest.raises(UnknownAction):
        workshop.action.named("nothing")


async def test_an_action_is_a_procrastinate_task(workshop: Workshop) -> None:
    @workshop.action(queue="texts", priority=4, lock="l", queueing_lock="ql")
    async def shout(text: str) -> str:
        return text.upper()

    assert workshop.queue.tasks["shout"] is shout
    await shout.defer_async(text="hi")
    (row,) = await workshop.fetch("SELECT queue, priority, lock FROM action_runs")
    assert tuple(row.values()) == ("texts", 4, "l")
