"""`runledger worker`: one process, as a service manager would start it, and how such managers ask whether it works."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Annotated

import typer

from app.cli.failure import Failure
from app.cli.screen import show, show_json

app = typer.Typer(help="Perform runs until told to stop.", invoke_without_command=True)


@app.callback()
def work(context: typer.Context) -> None:
    """Perform runs until told to stop."""
    if context.invoked_subcommand is None:
        # Instead of this process, not in it: what a service manager signals is the worker itself.
        # -P: ours, whatever `app` folder there is where this was started.
        os.execv(sys.executable, [sys.executable, "-P", "-m", "app.worker_main"])  # noqa: S606 - our own module


@app.command()
def healthcheck(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Say whether the worker of this host, or container, works: heard of within LEASE_SECONDS; exit code 1 if not."""
    host = socket.gethostname()
    seconds = asyncio.run(_silence(host))
    if as_json:
        show_json({"host": host, "heartbeat_seconds": seconds})
    else:
        show(f"The worker of {host} was heard of {seconds:.1f} s ago.")


async def _silence(host: str) -> float:
    """For how many seconds the worker of a host has not been heard of.

    Raises:
        Failure: for so long that the others take its runs; or there is none.
    """
    from app.cli import queries, schema
    from app.config import get_settings

    settings = get_settings()
    with schema.answering(settings):
        async with schema.open_engine(settings) as engine, engine.connect() as connection:
            seconds = await queries.get_silence(connection, host=host)
    if seconds is None:
        raise Failure(f"No worker of {host} is known.", "Start one with: runledger worker")
    if seconds > settings.lease_seconds:
        raise Failure(
            f"The worker of {host} was last heard of {seconds:.0f} s ago.", "Its log says why; start it again."
        )
    return seconds
