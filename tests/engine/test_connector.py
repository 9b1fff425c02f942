"""Procrastinate's documented behaviours, over our connector: with Procrastinate's own app and worker, and with ours.

Each behaviour is a row of a table: what its documentation says, and the few lines that show it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import procrastinate
import pytest
from procrastinate import exceptions
from procrastinate.jobs import Status
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.config import Settings
from app.engine.connector import SQLAlchemyAsyncConnector, translate
from app.engine.listener import Listener
from app.outbound.postgres.database import make_engine

WORKER = {"wait": False, "install_signal_handlers": False, "listen_notify": False}


@dataclass
class Bench:
    """An app with one task that writes down what it was called with."""

    app: procrastinate.App
    engine: AsyncEngine
    done: list[Any] = field(default_factory=list)
    task: Any = None

    async def work(self, **options: Any) -> list[Any]:
        await self.app.run_worker_async(**{**WORKER, **options})
        return self.done

    async def status(self, job_id: int) -> Status:
        return await self.app.job_manager.get_job_status_async(job_id)

    async def rows(self, sql: str) -> list[Any]:
        async with self.engine.connect() as connection:
            return list((await connection.execute(text(sql))).all())


@pytest.fixture(params=["Procrastinate's app", "our app"])
async def bench(request: pytest.FixtureRequest, workshop: Workshop) -> AsyncIterator[Bench]:
    bare = procrastinate.App(connector=SQLAlchemyAsyncConnector(workshop.engine, timeout=5))
    app = workshop.queue if request.param == "our app" else bare
    async with app.open_async():
        bench = Bench(app, workshop.engine)

        @app.task(name="test:note", queue="notes")
        async def note(what: Any = None) -> None:
            bench.done.append(what)

        bench.task = note
        yield bench


Behaviour = Callable[[Bench], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(said: str) -> Callable[[Behaviour], Behaviour]:
    def register(show: Behaviour) -> Behaviour:
        BEHAVIOURS[said] = show
        return show

    return register


@behaviour("a deferred job is performed with its arguments, whatever JSON they are")
async def _(bench: Bench) -> None:
    value = {"text": "100 % ':not_a_bind' $1 \"é\" 漢", "list": [1, 2.5, None, {"a": []}], "yes": True}
    job = await bench.task.defer_async(what=value)
    assert await bench.work() == [value]
    assert await bench.status(job) is Status.SUCCEEDED


@behaviour("jobs are performed in the order of their ids")
async def _(bench: Bench) -> None:
    for n in range(5):
        await bench.task.defer_async(what=n)
    assert await bench.work() == [0, 1, 2, 3, 4]


@behaviour("batch_defer_async defers many at once, in order")
async def _(bench: Bench) -> None:
    ids = await bench.task.batch_defer_async(*({"what": n} for n in range(50)))
    assert ids == sorted(set(ids)) and len(ids) == 50
    assert await bench.work() == list(range(50))


@behaviour("a higher priority goes first")
async def _(bench: Bench) -> None:
    for priority in (1, -3, 7):
        await bench.task.configure(priority=priority).defer_async(what=priority)
    assert await bench.work() == [7, 1, -3]


@behaviour("schedule_in keeps a job for later")
async def _(bench: Bench) -> None:
    job = await bench.task.configure(schedule_in={"hours": 1}).defer_async(what="later")
    assert await bench.work() == []
    assert await bench.status(job) is Status.TODO


@behaviour("schedule_at in the past is due")
async def _(bench: Bench) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    await bench.task.configure(schedule_at=past).defer_async(what="due")
    assert await bench.work() == ["due"]


@behaviour("a worker performs only the queues it was given")
async def _(bench: Bench) -> None:
    await bench.task.configure(queue="other").defer_async(what="other")
    await bench.task.defer_async(what="mine")
    assert await bench.work(queues=["notes"]) == ["mine"]
    assert await bench.work() == ["mine", "other"]


@behaviour("two jobs of one lock are never performed at the same time")
async def _(bench: Bench) -> None:
    together: list[int] = []
    running = 0

    @bench.app.task(name="test:locked", lock="one at a time")
    async def locked() -> None:
        nonlocal running
        running += 1
        await asyncio.sleep(0)
        together.append(running)
        running -= 1

    await locked.batch_defer_async({}, {}, {})
    for _ in range(3):
        await bench.work(concurrency=3)
    assert together == [1, 1, 1]


@behaviour("a second job of a queueing lock is refused, and says which lock and constraint")
async def _(bench: Bench) -> None:
    await bench.task.configure(queueing_lock="only (one)=x").defer_async()
    with pytest.raises(exceptions.AlreadyEnqueued, match=r"only \(one\)=x") as refused:
        await bench.task.configure(queueing_lock="only (one)=x").defer_async()
    violation = refused.value.__cause__
    assert isinstance(violation, exceptions.UniqueViolation)
    assert violation.constraint_name == "procrastinate_jobs_queueing_lock_idx_v1"
    assert violation.queueing_lock == "only (one)=x"


@behaviour("a batch with a taken queueing lock defers nothing")
async def _(bench: Bench) -> None:
    with pytest.raises(exceptions.AlreadyEnqueued):
        await bench.task.configure(queueing_lock="one").batch_defer_async({"what": 1}, {"what": 2})
    assert await bench.rows("SELECT 1 FROM procrastinate_jobs") == []


@behaviour("configure(connection=AsyncSession): the job commits with the caller's transaction")
async def _(bench: Bench) -> None:
    async with AsyncSession(bench.engine) as session:
        await bench.task.configure(connection=session).defer_async(what="with you")
        assert await bench.work() == []
        await session.commit()
    assert await bench.work() == ["with you"]


@behaviour("configure(connection=AsyncSession): the job vanishes with the caller's transaction")
async def _(bench: Bench) -> None:
    async with AsyncSession(bench.engine) as session:
        await bench.task.configure(connection=session).defer_async()
        await session.rollback()
    assert await bench.rows("SELECT 1 FROM procrastinate_jobs") == []
    assert await bench.rows("SELECT 1 FROM action_runs") == []


@behaviour("configure(connection=AsyncConnection) works as well, also for a batch")
async def _(bench: Bench) -> None:
    async with bench.engine.begin() as connection:
        await bench.task.configure(connection=connection).batch_defer_async({"what": 1}, {"what": 2})
    assert await bench.work() == [1, 2]


@behaviour("a refused queueing lock inside a savepoint leaves the caller's transaction alive")
async def _(bench: Bench) -> None:
    await bench.task.configure(queueing_lock="one").defer_async(what="first")
    async with AsyncSession(bench.engine) as session:
        with pytest.raises(exceptions.AlreadyEnqueued):
            async with session.begin_nested():
                await bench.task.configure(queueing_lock="one", connection=session).defer_async(what="second")
        await bench.task.configure(connection=session).defer_async(what="third")
        await session.commit()
    assert await bench.work() == ["first", "third"]


@behaviour("a connection of another kind is refused by name")
async def _(bench: Bench) -> None:
    with pytest.raises(TypeError, match="AsyncSession or an AsyncConnection, not str"):
        await bench.task.configure(connection="postgres").defer_async()


@behaviour("retry=n tries n more times, then the job has failed")
async def _(bench: Bench) -> None:
    tries: list[int] = []

    @bench.app.task(name="test:fails", retry=procrastinate.RetryStrategy(max_attempts=2, wait=-1), pass_context=True)
    async def fails(context: procrastinate.JobContext) -> None:
        tries.append(context.job.attempts)
        raise ValueError

    job = await fails.defer_async()
    for _ in range(4):
        await bench.work()
    assert tries == [0, 1, 2]
    assert await bench.status(job) is Status.FAILED


@behaviour("a waiting job that is cancelled is not performed")
async def _(bench: Bench) -> None:
    job = await bench.task.defer_async(what="never")
    assert await bench.app.job_manager.cancel_job_by_id_async(job)
    assert await bench.work() == []
    assert await bench.status(job) is Status.CANCELLED
    assert not await bench.app.job_manager.cancel_job_by_id_async(job)


@behaviour("a running job that is asked to abort is cancelled")
async def _(bench: Bench) -> None:
    started = asyncio.Event()

    @bench.app.task(name="test:long")
    async def long() -> None:
        started.set()
        await asyncio.Event().wait()

    job = await long.defer_async()
    worker = asyncio.create_task(
        bench.app.run_worker_async(install_signal_handlers=False, wait=False, abort_job_polling_interval=0.05)
    )
    await started.wait()
    assert await bench.app.job_manager.cancel_job_by_id_async(job, abort=True)
    await worker
    assert await bench.status(job) is Status.ABORTED


@behaviour("a synchronous task runs in a thread")
async def _(bench: Bench) -> None:
    @bench.app.task(name="test:sync")
    def sync(what: str) -> None:
        bench.done.append(what)

    await sync.defer_async(what="in a thread")
    assert await bench.work() == ["in a thread"]


@behaviour("delete_jobs=successful deletes what succeeded and keeps what failed")
async def _(bench: Bench) -> None:
    @bench.app.task(name="test:bad")
    async def bad() -> None:
        raise ValueError

    await bench.task.defer_async()
    kept = await bad.defer_async()
    await bench.work(delete_jobs="successful")
    assert await bench.rows("SELECT id FROM procrastinate_jobs") == [(kept,)]


@behaviour("a periodic task is deferred once a tick, however many deferrers there are")
async def _(bench: Bench) -> None:
    job = bench.task.configure(task_kwargs={"timestamp": 1_700_000_000}).job
    manager = bench.app.job_manager
    first = await manager.defer_periodic_job(job=job, periodic_id="", defer_timestamp=1_700_000_000)
    assert first is not None
    assert await manager.defer_periodic_job(job=job, periodic_id="", defer_timestamp=1_700_000_000) is None


@behaviour("the jobs of a worker that stopped beating are found")
async def _(bench: Bench) -> None:
    worker = await bench.app.job_manager.register_worker()
    await bench.task.defer_async()
    job = await bench.app.job_manager.fetch_job(queues=None, worker_id=worker)
    assert job is not None
    assert list(await bench.app.job_manager.get_stalled_jobs(seconds_since_heartbeat=30)) == []
    async with bench.engine.begin() as connection:
        await connection.execute(text("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 minute'"))
    stalled = list(await bench.app.job_manager.get_stalled_jobs(seconds_since_heartbeat=30))
    assert [found.id for found in stalled] == [job.id]
    assert await bench.app.job_manager.prune_stalled_workers(30) == [worker]


@behaviour("jobs that ended long ago can be deleted")
async def _(bench: Bench) -> None:
    await bench.task.defer_async()
    await bench.work()
    await bench.app.job_manager.delete_old_jobs(nb_hours=2)
    assert len(await bench.rows("SELECT 1 FROM procrastinate_jobs")) == 1
    async with bench.engine.begin() as connection:
        await connection.execute(text("UPDATE procrastinate_events SET at = now() - interval '3 hours'"))
    await bench.app.job_manager.delete_old_jobs(nb_hours=2)
    assert await bench.rows("SELECT 1 FROM procrastinate_jobs") == []


@behaviour("jobs, queues, tasks and locks can be listed and counted")
async def _(bench: Bench) -> None:
    await bench.task.configure(lock="l").defer_async(what=1)
    manager = bench.app.job_manager
    (job,) = await manager.list_jobs_async(queue="notes", status="todo", lock="l")
    assert job.task_kwargs == {"what": 1}
    for listed in (manager.list_queues_async(), manager.list_tasks_async(), manager.list_locks_async()):
        assert [row["todo"] for row in await listed] == [1]


@behaviour("a failed job can be retried by hand")
async def _(bench: Bench) -> None:
    @bench.app.task(name="test:once_bad")
    async def once_bad() -> None:
        bench.done.append("try")
        if len(bench.done) == 1:
            raise ValueError

    job = await once_bad.defer_async()
    await bench.work()
    now = datetime.datetime.now(datetime.UTC)
    await bench.app.job_manager.retry_job_by_id_async(job_id=job, retry_at=now - datetime.timedelta(seconds=1))
    await bench.work()
    assert await bench.status(job) is Status.SUCCEEDED


@behaviour("task.defer works from synchronous code, in a thread of an open app")
async def _(bench: Bench) -> None:
    await asyncio.to_thread(bench.task.defer, what="sync")
    assert await bench.work() == ["sync"]


@behaviour("the connection can be checked, and the schema is seen")
async def _(bench: Bench) -> None:
    assert await bench.app.check_connection_async() is True


@behaviour("middleware wraps every task")
async def _(bench: Bench) -> None:
    async def around(call_next: Any, context: Any, worker: Any) -> Any:
        bench.done.append("before")
        result = await call_next()
        bench.done.append("after")
        return result

    await bench.task.defer_async(what="task")
    assert await bench.work(worker_middleware=[around]) == ["before", "task", "after"]
    await bench.task.defer_async(what="task")
    assert (await bench.work(task_middleware=[around]))[3:] == ["before", "task", "after"]


@pytest.mark.parametrize("said", list(BEHAVIOURS))
async def test_documented_behaviour(said: str, bench: Bench) -> None:
    await BEHAVIOURS[said](bench)


@pytest.mark.bell("nobody looks but who hears")
async def test_a_notification_wakes_a_waiting_worker(workshop: Workshop) -> None:
    performed = asyncio.Event()

    @workshop.action()
    async def ring() -> None:
        performed.set()

    async with workshop.working(fetch_job_polling_interval=600):
        await listening(workshop)
        await workshop.submit("ring")
        await asyncio.wait_for(performed.wait(), 5)


async def test_a_job_deferred_while_the_listener_was_cut_off_is_found_when_it_listens_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    performed, deferred = asyncio.Event(), asyncio.Event()
    connected = Listener._connected

    @contextlib.asynccontextmanager
    async def not_before_it_is_deferred(self: Listener) -> AsyncGenerator[Any]:
        await deferred.wait()
        async with connected(self) as inbox:
            yield inbox

    @workshop.action()
    async def ring() -> None:
        performed.set()

    async with workshop.working(fetch_job_polling_interval=600):
        await listening(workshop)
        monkeypatch.setattr(Listener, "_connected", not_before_it_is_deferred)
        async with workshop.engine.begin() as connection:
            # Cut it off and insert in one transaction: the NOTIFY is sent to nobody.
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
                )
            )
            await workshop.action["ring"].task.configure(connection=connection).defer_async()
        deferred.set()
        await asyncio.wait_for(performed.wait(), 10)


@pytest.mark.bell("nobody looks but who hears")
async def test_a_notification_that_is_garbage_ends_nothing(workshop: Workshop) -> None:
    performed = asyncio.Event()

    @workshop.action()
    async def ring() -> None:
        performed.set()

    async with workshop.working(fetch_job_polling_interval=600):
        await listening(workshop)
        for garbage in ("", "garbage", "5", "[]", '{"type": "x"}', "x" * 7999):
            await workshop.execute("SELECT pg_notify('procrastinate_any_queue_v1', :garbage)", garbage=garbage)
        await workshop.submit("ring")
        await asyncio.wait_for(performed.wait(), 5)


async def test_a_database_that_does_not_answer_is_a_connector_exception() -> None:
    engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    with pytest.raises(exceptions.ConnectorException):
        await SQLAlchemyAsyncConnector(engine, timeout=2).execute_query_one_async("SELECT 1")
    await engine.dispose()


async def test_a_statement_that_takes_too_long_is_a_connector_exception(engine: AsyncEngine) -> None:
    connector = SQLAlchemyAsyncConnector(engine, timeout=0.05)
    with pytest.raises(exceptions.ConnectorException):
        await connector.execute_query_one_async("SELECT pg_sleep(60)")
    assert await SQLAlchemyAsyncConnector(engine).execute_query_one_async("SELECT 1 AS one") == {"one": 1}


def test_an_engine_of_another_driver_is_refused() -> None:
    engine = create_async_engine("postgresql+psycopg://localhost/x")
    with pytest.raises(ValueError, match="must use asyncpg"):
        SQLAlchemyAsyncConnector(engine)


def test_synchronous_code_can_defer_before_the_app_is_open(settings: Settings) -> None:
    app = procrastinate.App(connector=SQLAlchemyAsyncConnector(make_engine(settings)))

    @app.task(name="test:sync_only")
    def task() -> None: ...

    assert task.defer() < task.defer()


async def test_procrastinate_can_apply_its_own_schema(empty_database: Any) -> None:
    engine = create_async_engine(empty_database)
    app = procrastinate.App(connector=SQLAlchemyAsyncConnector(engine))
    await app.schema_manager.apply_schema_async()
    assert await app.check_connection_async() is True
    await engine.dispose()


@pytest.mark.parametrize(
    ("query", "sql", "parameters"),
    [
        ("SELECT 1", "SELECT 1", ()),
        ("SELECT '100%%'", "SELECT '100%'", ()),
        ("SELECT %(a)s::int, %(b)s", "SELECT $1::int, $2", ("a", "b")),
        ("SELECT %(a)s, %(b)s, %(a)s", "SELECT $1, $2, $1", ("a", "b")),
        ("SELECT (%(a)s || 'HOUR')::INTERVAL", "SELECT ($1 || 'HOUR')::INTERVAL", ("a",)),
    ],
)
def test_psycopg_placeholders_become_asyncpg_ones(query: str, sql: str, parameters: tuple[str, ...]) -> None:
    assert translate(query)[:2] == (sql, parameters)


async def listening(workshop: Workshop) -> None:
    """Wait until a worker listens."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    await eventually(lambda: workshop.value(sql))
