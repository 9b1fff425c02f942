"""What the documents' doors have in common: the same runs, each door in words of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TypeVar

from fastapi import Response

from app.errors import InvalidInput
from app.routers.headers import when_to_look_again
from app.runs.schemas import RunRead
from app.runs.state import RunState

Word = TypeVar("Word", bound=str)


def vocabulary(waiting: Word, running: Word, succeeded: Word, failed: Word, cancelled: Word) -> dict[RunState, Word]:
    """A door's word for each state. None of the documents tells apart why a run waits."""
    return {
        RunState.SCHEDULED: waiting,
        RunState.QUEUED: waiting,
        RunState.RETRYING: waiting,
        RunState.RUNNING: running,
        RunState.SUCCEEDED: succeeded,
        RunState.FAILED: failed,
        RunState.CANCELLED: cancelled,
    }


def say_more(run: RunRead, response: Response) -> None:
    """Set the headers of an answer about a run: the run itself behind what the door tells, and when to look again."""
    response.headers.append("Link", f'<{run.links.self}>; rel="canonical"')
    when_to_look_again(run, response)


@contextlib.contextmanager
def params_at(pointer: str) -> Generator[None]:
    """Faults in a run's params point to where this door takes them.

    Raises:
        InvalidInput: as inside the block, with `pointer` instead of `/params`.
    """
    try:
        yield
    except InvalidInput as problem:
        raise InvalidInput(
            errors=[
                fault.model_copy(update={"pointer": pointer + fault.pointer.removeprefix("/params")})
                for fault in problem.errors
            ]
        ) from None
