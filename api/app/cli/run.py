"""`runledger run`: submit a run, and perhaps wait for its end."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connection import connect
from app.cli.failure import INTERRUPTED, Failure
from app.cli.inputs import read_params
from app.cli.screen import say, show, show_json, stderr

if TYPE_CHECKING:
    from runledger_client import Run, RunOptions

_INPUT = "key=value (JSON, else text), key=@file (its text), @file or - (a JSON object in a file, on stdin)."


def run(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="What to do; `runledger actions` lists it.")],
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help=_INPUT)] = None,
    queue: Annotated[str | None, typer.Option(help="Another queue than the action's own.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher first.")] = None,
    lock: Annotated[str | None, typer.Option(help="Runs of one lock go one after the other.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="To find it by; may be repeated.")] = None,
    at: Annotated[str | None, typer.Option(help="Not before, like 2030-01-31T08:00.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Watch it, and print its result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run as JSON.")] = False,
) -> None:
    """Submit a run and print its id; with --wait its result. Ctrl-C while waiting leaves the run alone."""
    options = {"queue": queue, "priority": priority, "lock": lock, "tags": tags, "schedule_at": at and _time(at)}
    given: Any = {name: value for name, value in options.items() if value is not None}
    submitted, url = asyncio.run(_submit(action, read_params(inputs or []), given))
    if wait:
        _show_end(_wait(submitted, url), as_json=as_json)
    elif as_json:
        show_json(submitted.as_json())
    else:
        show(submitted.id)


async def _submit(action: str, params: dict[str, Any], options: RunOptions) -> tuple[Run, str]:
    """The run and its URL."""
    async with connect() as client:
        submitted = await client.submit(action, params, **options)
        return submitted, client.url + submitted.links["self"]


def _wait(submitted: Run, url: str) -> Run:
    """The run at its end."""
    try:
        return asyncio.run(_watch(submitted))
    except KeyboardInterrupt:
        say(f"The run goes on: {url}")
        raise typer.Exit(INTERRUPTED) from None


async def _watch(submitted: Run) -> Run:
    from app.cli.watching import display_on, watch

    async with connect() as client:
        with display_on(stderr) as display:
            say(submitted.id)
            return await watch(client, submitted, display, label=submitted.action)


def _show_end(ended: Run, *, as_json: bool) -> None:
    succeeded = ended.state == "succeeded"
    if as_json:
        show_json(ended.as_json())
    elif succeeded:
        show_json(ended.result)
    if not succeeded:
        why = str(ended.error) if ended.error else f"The run was {ended.state}."
        raise Failure(why, f"More: runledger runs get {ended.id} --traceback")


def _time(written: str) -> datetime:
    try:
        return datetime.fromisoformat(written).astimezone()
    except ValueError:
        raise typer.BadParameter(f"--at {written!r} is not a time like 2030-01-31T08:00.") from None
