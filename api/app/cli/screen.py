"""The two outputs: results on stdout, everything that is said meanwhile on stderr."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Generator
from typing import Any

from rich.console import Console
from rich.table import Table

from app.cli.failure import Failure, as_failure

stdout = Console(highlight=False, markup=False, emoji=False)
stderr = Console(stderr=True, highlight=False, markup=False, emoji=False)

if not stdout.is_terminal:
    # Programs read one line a row.
    stdout.width = 10_000

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def show(text: str) -> None:
    """Print a result."""
    stdout.print(printable(text), soft_wrap=True)


def show_json(value: Any) -> None:
    """Print a result as indented JSON, in colour on a terminal."""
    stdout.print_json(data=value, highlight=stdout.is_terminal)


def show_json_line(value: Any) -> None:
    """Print one of many results as a line of JSON."""
    stdout.out(json.dumps(value), highlight=False)


def show_table(columns: list[str], rows: list[list[str]]) -> None:
    """Print results as a table, whose last column may fold."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column != columns[-1], overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    stdout.print(table)


def say(text: str, style: str | None = None) -> None:
    """Tell the person at the terminal."""
    stderr.print(printable(text), style=style, soft_wrap=True)


@contextlib.contextmanager
def complaints() -> Generator[None]:
    """End the process with a message, not a traceback, when the block cannot do what was asked."""
    try:
        yield
    except Exception as error:
        failure = as_failure(error)
        if failure is None:
            raise
        complain(failure)
        sys.exit(failure.code)


def complain(failure: Failure) -> None:
    """Say what is wrong and what to do about it."""
    say(failure.message, "red")
    if failure.advice:
        say(failure.advice)


def printable(text: str) -> str:
    """The text without what would steer a terminal: it may come from anywhere."""
    return _CONTROL.sub("", text)
