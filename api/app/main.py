"""The API process: its parts, its doors, its errors. No logic."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncGenerator

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from app import __version__
from app.config import Settings, get_settings
from app.engine.app import App
from app.observability.logging import configure_logging
from app.observability.probes import is_probe
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
    metrics,
    queues,
    results,
    runs,
    schedules,
    tasks,
    webhooks,
    why,
    workers,
)
from app.routers.heads import Heads
from app.routers.hosts import AllowedHosts
from app.routers.problems import install_problem_handlers
from app.routers.security import document_credentials
from app.routers.services import open_services
from app.routers.stopping import streams_end_on_signal
from app.runs.actions import Actions
from app.tasks import action, procrastinate_app

DESCRIPTION = """
Submit an action, get a run id in milliseconds, watch the run to its end.

A run is *scheduled*, *queued*, *running*, *retrying*, and ends *succeeded*, *failed* or *cancelled*.
Every error is a problem document ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).
"""

DOORS = (
    *(runs, results, events, changes, health, metrics),
    *(why, queues, workers, schedules, dead_letters),
    *(actions, jobs, tasks, adventures, webhooks, files, audit),
)
"""Their routes are tried in this order: first what is asked for most."""


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
        async with queue.open_async(), open_services(settings, queue, catalogue) as services:
            app.state.services = services
            with streams_end_on_signal(services.stopping):
                yield

    # In production nobody is told what there is to try.
    has_reference = settings.environment != "production"
    app = (FastAPIOffline if has_reference else FastAPI)(
        title="Runledger",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        lifespan=lifespan,
        openapi_url="/openapi.json" if has_reference else None,
        redoc_url=None,
        webhooks=webhooks.events,
        redirect_slashes=False,
        generate_unique_id_function=contract.operation_id,
        telemetry={"exclude": is_probe},
    )
    for door in DOORS:
        app.include_router(door.router)
    if has_reference:
        app.add_route("/", lambda _: RedirectResponse("/docs"), include_in_schema=False)
    install_problem_handlers(app)
    app.add_middleware(Heads)
    app.add_middleware(AllowedHosts, names=settings.allowed_hosts)
    document_credentials(app)
    contract.publish(app)
    return app


def __getattr__(name: str) -> FastAPI:
    """`uvicorn app.main:app`: made when asked for, not when this module is imported for its `create_app`."""
    if name == "app":
        app = create_app()
        # The program itself is no garbage: not to be looked through again and again.
        gc.collect()
        gc.freeze()
        return app
    raise AttributeError(name)
