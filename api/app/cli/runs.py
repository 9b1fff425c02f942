"""`runledger runs …`: look at runs, cancel them, retry them, tell them something."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.cli.connection import connect
from app.cli.events import clock, line
from app.cli.inputs import read_value
from app.cli.screen import say, show, show_json, show_json_line, show_table

if TYPE_CHECKING:
    from runledger_client import Client, Run

T = TypeVar("T")

app = typer.Typer(help="Look at runs, cancel them, retry them, tell them something.", no_args_is_help=True)


class State(StrEnum):
    """Where a run can be: the words of `app.runs.state`, without what that package imports."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_WAITING = (State.SCHEDULED, State.QUEUED, State.RETRYING)

RunId = Annotated[str, typer.Argument(metavar="ID", help="What `runledger run` printed.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command("list")
def list_runs(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    action: Annotated[str | None, typer.Option(help="Only those of this action.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    page = asyncio.run(_ask(lambda client: client.list(state=state, action=action, tag=tag, limit=limit)))
    if as_json:
        show_json(page.as_json())
    else:
        show_table(["ID", "ACTION", "STATE", "CREATED", "NOTE"], [_row(found) for found in page.items])


@app.command("get")
def get_run(
    run_id: RunId,
    traceback: Annotated[bool, typer.Option("--traceback", help="Also where its last attempt failed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a run as it is now."""
    found = asyncio.run(_ask(lambda client: client.get(run_id, traceback=traceback)))
    if as_json:
        show_json(found.as_json())
        return
    _show_run(found.as_json())
    if found.state in _WAITING:
        for reason in asyncio.run(_ask(lambda client: client.why(run_id))):
            show(f"{'why':<12} {reason.message}")


@app.command("tail")
def tail_run(
    run_id: RunId, as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False
) -> None:
    """Print a run's events, past and coming, until it ends."""
    asyncio.run(_tail(run_id, as_json=as_json))


@app.command("cancel")
def cancel_run(run_id: RunId, as_json: AsJson = False) -> None:
    """Cancel a run: at once if it waits, else as soon as its worker has heard."""
    cancelled = asyncio.run(_ask(lambda client: client.cancel(run_id)))
    _show_state(cancelled, as_json=as_json)
    if cancelled.state == State.RUNNING:
        say("Its worker has been asked to stop it.")


@app.command("retry")
def retry_run(run_id: RunId, as_json: AsJson = False) -> None:
    """Give a run that failed or was cancelled another attempt."""
    _show_state(asyncio.run(_ask(lambda client: client.retry(run_id))), as_json=as_json)


@app.command("signal")
def signal_run(
    run_id: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the run waits for, or will wait for.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="What to tell it: JSON, else text.")] = "null",
    as_json: AsJson = False,
) -> None:
    """Tell a run something that it waits for."""
    told = asyncio.run(_ask(lambda client: client.signal(run_id, name, read_value(data))))
    if as_json:
        show_json(told.as_json())
    else:
        show(f"{told.run_id} was told {told.name}")


async def _ask(question: Callable[[Client], Awaitable[T]]) -> T:
    async with connect() as client:
        return await question(client)


async def _tail(run_id: str, *, as_json: bool) -> None:
    async with connect() as client, contextlib.aclosing(client.stream(run_id)) as events:
        async for event in events:
            if as_json:
                show_json_line(event.as_json())
            elif event.type != "end":
                show(f"{clock(event)} {line(event)}")


def _show_state(found: Run, *, as_json: bool) -> None:
    if as_json:
        show_json(found.as_json())
    else:
        show(f"{found.id} {found.state}")


def _show_run(found: dict[str, Any]) -> None:
    traceback = found.pop("traceback", None)
    for name, value in found.items():
        if value not in (None, [], {}) and name != "links":
            show(f"{name:<12} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    if traceback:
        show(f"\n{traceback}")


def _row(found: Run) -> list[str]:
    return [found.id, found.action, found.state, _when(found.created_at), _note(found)]


def _when(time: datetime) -> str:
    """The clock for today, else the day."""
    there, now = time.astimezone(), datetime.now().astimezone()
    return f"{there:%H:%M:%S}" if there.date() == now.date() else f"{there:%Y-%m-%d}"


def _note(found: Run) -> str:
    if found.error:
        return str(found.error)
    progress = found.progress
    return "" if progress is None or progress.percent is None else f"{progress.percent:.0f} %"
