"""Plain functions as actions: each call in a child process, which can be killed when its time is over."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_process


def check_importable(name: str, function: Callable[..., Any]) -> None:
    """Refuse a function that another process cannot find.

    Raises:
        TypeError: it is not at the top of a module.
    """
    if "<locals>" in function.__qualname__:
        raise TypeError(f"Action {name!r} is not async, so it is called in a child process: define it in a module.")


async def call_in_child(function: Callable[..., Any], arguments: list[Any]) -> Any:
    """What the function returns, called in another process; cancelling this kills that process at once.

    Arguments, result and errors are pickled. Processes are kept for the next call, up to five minutes.

    Raises:
        anyio.BrokenWorkerProcess: the process died.
    """
    call = functools.partial(_call, function.__module__, function.__qualname__, arguments)
    # As many at once as the worker has slots: its concurrency is the limit.
    return await anyio.to_process.run_sync(call, cancellable=True, limiter=anyio.CapacityLimiter(math.inf))


def _call(module: str, qualname: str, arguments: list[Any]) -> Any:
    # In its module the name belongs to the task that the function has become.
    found = operator.attrgetter(qualname)(importlib.import_module(module))
    return inspect.unwrap(getattr(found, "func", found))(*arguments)
