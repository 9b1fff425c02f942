"""Plain functions that become actions: they are called in child processes, which must be able to import them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.runs.actions import Actions


def pid() -> int:
    return os.getpid()


def block(seconds: float, pid_file: str) -> None:
    Path(pid_file).write_text(str(os.getpid()))
    time.sleep(seconds)


def refuse() -> None:
    raise ValueError("not this one")


def die() -> None:
    os._exit(9)


FUNCTIONS: dict[str, Callable[..., Any]] = {function.__name__: function for function in (pid, block, refuse, die)}


def register(action: Actions, name: str, **options: Any) -> None:
    """Make one of them an action, in its module too, as a decorator does."""
    globals()[name] = action(**options)(FUNCTIONS[name])
