"""A process whose clock is wrong."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

import time_machine


@contextlib.contextmanager
def skewed(seconds: float) -> Generator[None]:
    """Move this process's clock; the time that passes stays what it is, as on a machine that is set wrong."""
    if not seconds:
        yield
        return
    with time_machine.travel(time.time() + seconds, tick=True):
        yield
