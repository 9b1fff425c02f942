"""Runs while they run: as bars on a terminal, as lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from typing_extensions import override

from app.cli.events import clock, line
from app.cli.screen import printable
from runledger_client import Client, Event, Run


class Display(Protocol):
    """Shows the events of several runs."""

    def add(self, run_id: str, label: str) -> None:
        """Make room for a run."""
        ...

    def show(self, run_id: str, event: Event) -> None:
        """Show what happened to a run that was added."""
        ...


async def watch(client: Client, run: Run, display: Display, *, label: str) -> Run:
    """Show a run until it ends.

    Returns:
        The run as it ended.
    """
    display.add(run.id, label)
    async with contextlib.aclosing(client.stream(run.id)) as events:
        async for event in events:
            display.show(run.id, event)
            if event.type == "end":
                return Run.model_validate(event.data)
    raise AssertionError("a stream ends with the end of its run")


@contextlib.contextmanager
def display_on(console: Console) -> Generator[Display]:
    """The display that fits the console, for the length of the block."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)


class Bars(Display):
    """A progress bar for each run."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    @override
    def add(self, run_id: str, label: str) -> None:
        self._bars[run_id] = self._progress.add_task(printable(label), total=None, note="")

    @override
    def show(self, run_id: str, event: Event) -> None:
        bar = self._bars[run_id]
        self._progress.update(bar, **_changes(event))
        if event.type == "end":
            self._progress.stop_task(bar)


class Lines(Display):
    """A line for each event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._labels: dict[str, str] = {}

    @override
    def add(self, run_id: str, label: str) -> None:
        self._labels[run_id] = label

    @override
    def show(self, run_id: str, event: Event) -> None:
        if event.type != "end":
            text = f"{clock(event)} {self._labels[run_id]}: {line(event)}"
            self._console.print(printable(text), soft_wrap=True)


def _changes(event: Event) -> dict[str, Any]:
    note = printable(line(event))
    match event.type:
        case "progress":
            return {"completed": event.data["done"], "total": event.data["total"], "note": note}
        case "end" if event.data["state"] == "succeeded":
            return {"completed": 1, "total": 1, "note": "succeeded"}
        case "end":
            return {"note": event.data["state"]}
        case "step":
            # Progress says it better.
            return {}
        case _:
            return {"note": note}
