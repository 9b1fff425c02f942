"""The API process: its parts, its doors, its errors. No logic."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import AsyncGenerator, Generator
from types import FrameType

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from app import __version__
from app.access.gate import Gate
from app.access.streams import Streams
from app.config import Settings, get_settings
from app.control.pulse import Pulse
from app.engine.app import App
from app.observability.logging import configure_logging
from app.outbound.postgres.database import make_engine
from app.outbound.storage.client import open_storage
from app.routers import (
    actions,
    adventures,
    audit,
    changes,
    contract,
    dead_letters,
    events,
    files,
    health,
    jobs,
    queues,
    runs,
    schedules,
    tasks,
    webhooks,
    why,
    workers,
)
from app.routers.dependencies import Services
from app.routers.hosts import AllowedHosts
from app.routers.problems import install_problem_handlers
from app.routers.security import document_credentials
from app.runs.actions import Actions
from app.runs.intake import Intake
from app.runs.lookout import Lookout
from app.tasks import action, procrastinate_app

# Routes are tried in this order: first what is asked for most.
DOORS = (
    runs, events, changes, health, why, queues, workers, schedules, dead_letters, actions, jobs, tasks, adventures,
    webhooks, files, audit,
)  # fmt: skip

DESCRIPTION = """
Submit an action, get a run id in milliseconds, watch the run to its end.

A run is *scheduled*, *queued*, *running*, *retrying*, and ends *succeeded*, *failed* or *cancelled*.
Every error is a problem document ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).
"""


def create_app(
    settings: Settings | None = None, queue: App = procrastinate_app, catalogue: Actions = action
) -> FastAPI:
    """The API.

    Raises:
        ConfigurationError: it would serve strangers without a credential.
    """
    settings = settings or get_settings()
    settings.check_exposure()
    configure_logging(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_services(settings, queue, catalogue) as app.state.services:
            yield

    app = FastAPIOffline(
        title="Runledger",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        lifespan=lifespan,
        redoc_url=None,
        webhooks=webhooks.events,
        redirect_slashes=False,
        generate_unique_id_function=contract.operation_id,
    )
    for door in DOORS:
        app.include_router(door.router)
    install_problem_handlers(app)
    app.add_middleware(AllowedHosts, names=settings.hosts)
    app.add_route("/", lambda _: RedirectResponse("/docs"), include_in_schema=False)
    document_credentials(app)
    contract.publish(app)
    return app


@contextlib.asynccontextmanager
async def open_services(settings: Settings, queue: App, catalogue: Actions) -> AsyncGenerator[Services]:
    """What every request finds, for as long as the API runs; when it is told to stop, open streams end first."""
    async with queue.open_async(), open_storage(settings) as storage:
        # Its own: who asks does not wait for a connection for as long as a worker would.
        engine = make_engine(settings, pool_timeout=settings.pool_timeout_seconds)
        intake = Intake(engine, timeout=settings.db_timeout_seconds, max_queued=settings.max_queued_runs)
        stopping = asyncio.Event()
        lookout = Lookout(engine, timeout=settings.db_timeout_seconds, stopping=stopping)
        with streams_end_on_signal(stopping):
            watching = asyncio.create_task(lookout.run())
            yield Services(
                settings,
                engine,
                queue.job_manager,
                catalogue,
                intake,
                lookout,
                Pulse(engine, lease=settings.lease_seconds),
                Gate(settings, engine),
                Streams(settings.max_streams),
                stopping,
                queue.schedules,
                storage,
            )
            stopping.set()
            await watching
        await intake.aclose()
        await engine.dispose()


def __getattr__(name: str) -> FastAPI:
    """`uvicorn app.main:app`: made when asked for, not when this module is imported for its `create_app`."""
    if name == "app":
        app = create_app()
        # The program itself is no garbage: not to be looked through again and again.
        gc.collect()
        gc.freeze()
        return app
    raise AttributeError(name)


@contextlib.contextmanager
def streams_end_on_signal(stopping: asyncio.Event) -> Generator[None]:
    """Tell open streams to end as soon as the process is told to stop: uvicorn would wait for them for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopping.set)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in previous.items():
        if callable(handler):
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if callable(handler):
                signal.signal(number, handler)
