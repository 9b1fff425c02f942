"""`runledger up`: everything on this machine, with one command."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.address import require_free
from app.cli.screen import say, show

if TYPE_CHECKING:
    from app.config import Settings


def up(
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Instead of PORT; 0: any that is free.")] = None,
) -> None:
    """Start the database, the API and a worker; Ctrl-C stops them."""
    from app.config import get_settings

    settings = get_settings()
    settings.check_exposure()
    free = require_free(settings.host, settings.port if port is None else port)
    asyncio.run(_serve(settings, free))


async def _serve(settings: Settings, port: int) -> None:
    from app.cli.backend import cancelled_by_signals, running
    from app.cli.schema import prepare_database

    with cancelled_by_signals():
        try:
            await asyncio.to_thread(prepare_database, settings)
            async with running(settings, port) as backend:
                show(f"Runledger is up: {backend.url} (reference: {backend.url}/docs)")
                say("Ctrl-C stops it.")
                await backend.during(_for_ever())
        except asyncio.CancelledError:
            say("Stopped.")


async def _for_ever() -> None:
    await asyncio.Event().wait()
