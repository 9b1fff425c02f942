"""Read a file that somebody has sent, in a process that may be killed, within bounds of time and memory."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_process

from app.errors import Rejected

T = TypeVar("T")

SECONDS = 30.0
MEMORY_BYTES = 768 * 1024 * 1024
"""More than the process has when it begins."""


async def read_in_child(read: Callable[[bytes], T], data: bytes) -> T:
    """What `read`, a function at the top of a module, makes of the file.

    Raises:
        Rejected: it takes too long or too much memory, breaks the reader, or is not what it seems.
    """
    try:
        with anyio.fail_after(SECONDS):
            return await anyio.to_process.run_sync(_read_within_bounds, read, data, cancellable=True)
    except TimeoutError:
        raise Rejected(f"The file takes more than {SECONDS:.0f} s to read. Send a simpler one.") from None
    except anyio.BrokenWorkerProcess:
        raise Rejected("The file broke its reader. Send it in another format.") from None


def _read_within_bounds(read: Callable[[bytes], T], data: bytes) -> T:
    try:
        with _bounded_memory():
            return read(data)
    except MemoryError:
        raise Rejected("The file takes too much memory to read. Send a smaller one.") from None
    except Rejected:
        raise
    except Exception as fault:  # noqa: BLE001 - readers of broken files fail in ways of their own
        # Without what they say, which quotes the file.
        raise Rejected(f"The file is damaged, or not what it begins like ({type(fault).__name__}).") from None


@contextlib.contextmanager
def _bounded_memory() -> Generator[None]:
    """Only while reading: the process is kept for other calls."""
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
