"""API and worker as child processes: started together, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, Coroutine, Generator
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import httpx2

from app.cli.address import url_of
from app.cli.failure import Failure
from app.cli.screen import say
from app.config import Settings

T = TypeVar("T")

START_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 0.1
SPARE_SECONDS = 10.0
"""What a child gets beyond its own grace before it is killed."""


@dataclass(frozen=True)
class Child:
    """A process that this one has started and will end."""

    name: str
    process: Process

    def require_running(self) -> None:
        """Do nothing while it runs.

        Raises:
            Failure: it has ended by itself.
        """
        if self.process.returncode is not None:
            raise Failure(
                f"The {self.name} has ended with exit code {self.process.returncode}; its last lines say why."
            )

    async def stop(self, patience: float) -> None:
        """Ask it to end and wait for that; kill it when `patience` seconds are over, or when asked a second time."""
        if self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), patience)
        except (TimeoutError, asyncio.CancelledError):
            self.process.kill()
            await self.process.wait()


@dataclass(frozen=True)
class Backend:
    """An API and a worker that run, and where the API is."""

    url: str
    children: tuple[Child, Child]

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns.

        Raises:
            Failure: API or worker has ended before the work.
        """
        task = asyncio.create_task(work)
        ends = [asyncio.create_task(child.process.wait()) for child in self.children]
        try:
            await asyncio.wait([task, *ends], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.require_running()
            return await task
        finally:
            for waiting in (task, *ends):
                waiting.cancel()
            await asyncio.gather(task, *ends, return_exceptions=True)

    def require_running(self) -> None:
        """Do nothing while both run.

        Raises:
            Failure: one has ended by itself.
        """
        for child in self.children:
            child.require_running()


@contextlib.asynccontextmanager
async def running(settings: Settings, port: int, *, output: IO[str] | None = None) -> AsyncGenerator[Backend]:
    """API and worker, ready for requests on `port`; both are ended when the block ends.

    Args:
        output: where they write their logs, instead of this process's own output.

    Raises:
        Failure: one of them ended, or the API was not ready in time.
    """
    say("Starting API and worker …")
    patience = settings.grace_seconds + SPARE_SECONDS
    # The worker ends first: whoever watches a run is told by the API that it went back to the queue.
    async with (
        _child("API", ["app.cli", "api", "--port", str(port)], output, patience) as api,
        _child("worker", ["app.worker_main"], output, patience) as worker,
    ):
        backend = Backend(url_of(settings.host, port), (api, worker))
        await _ready(backend)
        yield backend


@contextlib.contextmanager
def cancelled_by_signals() -> Generator[None]:
    """Cancel the current task when this process is told to stop, each time it is told."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _child(name: str, module: list[str], output: IO[str] | None, patience: float) -> AsyncGenerator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-uP",  # log lines at once, and no `app` folder of wherever this was started
        "-m",
        *module,
        stdin=DEVNULL,
        stdout=output,
        stderr=output,
        # Ctrl-C is for the parent: it ends its children in order.
        process_group=0,
    )
    child = Child(name, process)
    try:
        yield child
    finally:
        await child.stop(patience)


async def _ready(backend: Backend) -> None:
    try:
        async with asyncio.timeout(START_SECONDS), httpx2.AsyncClient(trust_env=False) as http:
            while not await _answers(http, f"{backend.url}/readyz"):
                backend.require_running()
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
    except TimeoutError:
        raise Failure(
            f"The API is not ready after {START_SECONDS:.0f} s.", "Look for the cause with: runledger doctor"
        ) from None


async def _answers(http: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx2.TransportError:
        return False
