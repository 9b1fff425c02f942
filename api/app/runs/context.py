"""What an action receives: its run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import JobContext
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.journal import Outcome, Policy
from app.engine.claims import ClaimedJob
from app.engine.connector import SQLAlchemyAsyncConnector, translated_errors
from app.engine.manager import JobManager
from app.errors import NotBegun, RunLost
from app.observability import tracing
from app.outbound.clients import Clients
from app.outbound.postgres.database import autocommit
from app.runs import queries, signals
from app.runs.children import Ask, Children
from app.runs.queries import Holder
from app.runs.steps import Steps
from app.runs.values import storable_text

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.25
"""Progress is written at most this often; the last word is always written."""

P = ParamSpec("P")
R = TypeVar("R")


class Run:
    """One attempt of a run, as its action sees it.

    Every write is fenced: when another attempt holds the run, `RunLost` ends this one and nothing is written.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        holder: Holder,
        *,
        steps: dict[str, Any],
        children: Children,
        clients: Clients,
        action: str,
        owner: str | None,
        extend: Callable[[float], None],
    ) -> None:
        self.id = holder.run_id
        self.action = action
        self.owner = owner
        """Whose run it is; `None`: nobody's, and it may use what is anybody's."""
        self.attempt = holder.attempt
        """1 for the first try."""
        self.clients = clients
        """The outbound clients of this worker, as the run's owner may use them."""
        self._engine = engine
        self._holder = holder
        self._steps = Steps(steps, self._keep_step)
        self._children = children
        self._extend = extend
        self._progress: _Coalesced | None = None

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the run is. Cheap to call often: only a few a second are written."""
        if self._progress is None:
            self._progress = _Coalesced(self._write_progress)
        await self._progress.put({"done": done, "total": total, "message": message and storable_text(message)})

    def extend(self, seconds: float) -> None:
        """Ask for more time: from now on, this attempt may take `seconds`, whatever its timeout was."""
        self._extend(seconds)

    async def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """Write a line of the run's history, shown to those who watch it. `fields` are JSON."""
        told = {name: storable_text(value) if isinstance(value, str) else value for name, value in fields.items()}
        await self._append("log", {"level": level, "message": storable_text(message), **told})

    async def step(self, name: str, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do something once per run, however many attempts the run takes.

        The result is stored under `name` before this returns, and a later attempt gets the stored result. Names are
        stored, so they never change meaning. The result must fit JSON; it is read back by the function's return hint.
        """
        return await self._steps.step(name, function, *args, **kwargs)

    async def spawn(self, action: str, params: dict[str, Any] | None = None, *, key: str | None = None) -> str:
        """Submit a child: a run that belongs to whom this one belongs. It goes on whether this one waits for it or not.

        It is submitted once, however many attempts this run takes: a later attempt finds it by its `key`, or by its
        place among the children without one. So what comes before must come out the same: put it into a step.

        Returns:
            Its id.
        """
        [child_id] = await self._children.spawn([(action, params or {})], key=key)
        return child_id

    async def gather(
        self, children: Sequence[str | tuple[str, dict[str, Any]]], *, policy: Policy = "cancel"
    ) -> list[Outcome]:
        """How children have ended, in the order given; those that are given as action and params are spawned first.

        While they have not ended, no worker waits: this attempt ends here, without being counted, and when the last of
        them ends the action is called again from the top. Await one such thing at a time, and let `RunWaits` pass.

        Args:
            children: ids that `spawn` has returned, or action and params.
            policy: "cancel": the first that fails cancels the others and raises `ChildFailed`; "continue": wait for
                all, and look at each outcome.
        """
        spawned = iter(await self._children.spawn([child for child in children if not isinstance(child, str)]))
        ids = [child if isinstance(child, str) else next(spawned) for child in children]
        return await self._children.gather(ids, policy)

    async def wait_for(self, signal: str, *, timeout: float | None = None) -> Any:
        """The JSON that somebody has sent, or will send, by `POST /runs/{id}/signals/{signal}`. No worker waits.

        A name is told once: what came first is what every attempt gets.

        Args:
            timeout: seconds after which it is given up; not given: never.

        Raises:
            SignalTimeout: it has not come in time. Later attempts are told the same, even if it comes then.
        """
        answer = await self.step(f"signal:{signal}", signals.receive, self._engine, self._holder, signal, timeout)
        return signals.data_of(answer, signal)

    @contextlib.asynccontextmanager
    async def traced(self) -> AsyncGenerator[None]:
        """Around the attempt, a span in the run's trace.

        Raises:
            NotBegun: the database did not say which trace.
        """
        try:
            with translated_errors():
                async with autocommit(self._engine).connect() as connection:
                    run = await queries.get_run(connection, self.id)
        except ConnectorException as error:
            raise NotBegun from error
        if run is None:
            # It was deleted: what the action writes will tell it.
            yield
            return
        attempt = tracing.Attempt(
            self.action, self.id, run.job_id, self.attempt, run.queue, self._holder.worker_id, run.parent_id is not None
        )
        with tracing.performing(attempt, run.trace_context):
            yield

    async def written(self) -> None:
        """Wait until the last progress is written."""
        if self._progress is not None:
            await self._progress.close()

    async def _keep_step(self, name: str, result: Any) -> None:
        async with autocommit(self._engine).connect() as connection:
            _held(await queries.insert_step(connection, self._holder, name=name, result=result))

    async def _write_progress(self, value: dict[str, Any]) -> None:
        await self._append("progress", value)

    async def _append(self, type_: str, data: dict[str, Any]) -> None:
        async with autocommit(self._engine).connect() as connection:
            _held(await queries.append_event(connection, self._holder, type_=type_, data=data))


async def begin(context: JobContext, ask: Ask) -> Run:
    """The run of a job that this worker has claimed.

    Args:
        ask: makes the runs that it may spawn.

    Raises:
        RunLost: its record is gone.
        NotBegun: the database did not answer.
    """
    job = context.job
    connector, manager = context.app.connector, context.app.job_manager
    assert isinstance(job, ClaimedJob)
    assert isinstance(connector, SQLAlchemyAsyncConnector) and isinstance(manager, JobManager)
    if job.run_id is None:
        raise RunLost
    engine = connector.engine
    holder = Holder(job.run_id, job.worker_id, job.attempts + 1, job.snoozes)
    return Run(
        engine,
        holder,
        steps=await _steps(engine, holder) if job.steps else {},
        children=Children(connector, manager, holder, ask),
        clients=context.additional_context["clients"].of(job.owner),
        action=job.task_name,
        owner=job.owner,
        extend=context.additional_context["extend"],
    )


async def _steps(engine: AsyncEngine, holder: Holder) -> dict[str, Any]:
    try:
        with translated_errors():
            async with autocommit(engine).connect() as connection:
                return await queries.get_steps(connection, holder.run_id)
    except ConnectorException as error:
        raise NotBegun from error


def _held(written: bool) -> None:
    if not written:
        raise RunLost


class _Coalesced:
    """Writes the newest of many values: at once when nothing was written lately, else when the pause is over.

    A value that cannot be written is given up, for a newer one or for good: it must not fail the run.
    """

    def __init__(self, write: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._write = write
        self._newest: dict[str, Any] | None = None
        self._pausing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def put(self, value: dict[str, Any]) -> None:
        self._newest = value
        if self._pausing is not None and self._pausing.done():
            # What ended in the background is the action's to know: it may have lost the run.
            self._pausing.result()
            self._pausing = None
        if self._pausing is None:
            await self._flush()
            self._pausing = asyncio.create_task(self._pause_and_flush())

    async def close(self) -> None:
        """Write the last value."""
        if self._pausing is not None:
            self._closing.set()
            await self._pausing
        await self._flush()

    async def _pause_and_flush(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROGRESS_SECONDS):
                await self._closing.wait()
        await self._flush()

    async def _flush(self) -> None:
        value, self._newest = self._newest, None
        if value is None:
            return
        try:
            await self._write(value)
        except Exception:
            logger.warning("Progress could not be written", exc_info=True)
