"""`runledger db …`: the schema."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from app.cli.failure import Failure
from app.cli.screen import show, show_json

app = typer.Typer(help="The database schema.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command()
def upgrade(as_json: AsJson = False) -> None:
    """Bring the schema up to date; safe to run twice, and from several machines at once."""
    from app.cli import schema
    from app.config import get_settings

    applied = schema.upgrade(get_settings())
    if as_json:
        show_json({"applied": applied})
    else:
        show(f"The schema is up to date: {len(applied)} revision(s) applied.")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Say whether the schema is the one that this code needs; exit code 1 if not."""
    from app.cli import schema
    from app.config import get_settings

    missing = sorted(asyncio.run(schema.missing(get_settings())))
    if as_json:
        show_json({"current": not missing, "missing": missing})
    elif not missing:
        show("The schema is up to date.")
    if missing:
        raise Failure(f"The database lacks {', '.join(missing)}.", "Run: runledger db upgrade")
