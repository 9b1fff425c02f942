"""`runledger keys …`: API keys, made and revoked directly in the database."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.access.networks import Network, read_network
from app.access.principal import Scope, is_scope
from app.cli.failure import Failure
from app.cli.screen import say, show, show_json, show_table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.access.keys import StoredKey

app = typer.Typer(help="API keys.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
_USUAL: list[str] = [Scope.READ, Scope.WRITE]
LONGEST = 255


@app.command()
def create(
    owner: Annotated[str | None, typer.Option(help="Whose runs it submits and sees; not for admin.")] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    scope: Annotated[list[str], typer.Option(help=f"{', '.join(Scope)} or actions:NAME; repeat for several.")] = _USUAL,
    network: Annotated[
        list[str] | None,
        typer.Option(help="From where it may be sent, as 203.0.113.0/24; repeat for several; else from anywhere."),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="When it expires; else never.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    scopes = frozenset(scope)
    _check(owner, name, scopes)
    key = asyncio.run(_create(owner, name, scopes, [_network(each) for each in network or ()], days))
    if as_json:
        show_json(key)
    else:
        say("Keep it now: it is not shown again. Send it as Authorization: Bearer, or in X-ROADMAP-AI-SECRET.")
        show(key["key"])


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List keys, without what makes them work: id, owner, scopes, networks, whether they are valid, their last use."""
    keys = asyncio.run(_list())
    if as_json:
        show_json([_json(key) for key in keys])
    else:
        show_table(["ID", "OWNER", "SCOPES", "FROM", "STATE", "LAST USED", "NAME"], [_row(key) for key in keys])


@app.command()
def revoke(id_: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")]) -> None:
    """Make a key invalid; every API process has heard of it two seconds later."""
    if not asyncio.run(_revoke(id_)):
        raise Failure(f"There is no key {id_}.", "List them with: runledger keys list")
    say(f"Revoked {id_}.")


def _check(owner: str | None, name: str, scopes: frozenset[str]) -> None:
    if unknown := sorted(word for word in scopes if not is_scope(word)):
        raise typer.BadParameter(f"{unknown[0]!r} is no scope. There are: {', '.join(Scope)}, actions:NAME.")
    if not all(len(text) <= LONGEST and text.isprintable() for text in (owner or "", name)):
        raise Failure(f"Owner and name must be printable, of up to {LONGEST} characters.")
    if Scope.ADMIN in scopes and owner is not None:
        raise Failure("A key with the scope admin sees everybody's runs.", "Leave out --owner.")
    if Scope.ADMIN not in scopes and not owner:
        raise Failure("Whose runs may it see?", "Say it with --owner NAME.")


def _network(text: str) -> Network:
    try:
        return read_network(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no network. Write 203.0.113.0/24, or a single address.") from None


async def _create(
    owner: str | None, name: str, scopes: frozenset[str], networks: list[Network], days: int | None
) -> dict[str, Any]:
    from app.access import keys
    from app.config import get_settings

    lifetime = None if days is None else timedelta(days=days)
    async with _engine() as engine:
        label = get_settings().key_label
        key = await keys.create(
            engine, label, name=name, owner=owner, scopes=scopes, networks=networks, lifetime=lifetime
        )
    return {
        "id": keys.id_of(key.encode()),
        "key": key,
        "owner": owner,
        "scopes": sorted(scopes),
        "networks": list(map(str, networks)),
    }


async def _list() -> list[StoredKey]:
    from app.access import keys

    async with _engine() as engine:
        return await keys.list_all(engine)


async def _revoke(id_: str) -> bool:
    from app.access import keys

    async with _engine() as engine:
        return await keys.revoke(engine, id_)


@contextlib.asynccontextmanager
async def _engine() -> AsyncGenerator[AsyncEngine]:
    from app.cli import schema
    from app.config import get_settings

    settings = get_settings()
    with schema.answering(settings):
        async with schema.open_engine(settings) as engine:
            yield engine


def _json(key: StoredKey) -> dict[str, Any]:
    shown = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in dataclasses.asdict(key).items()
    }
    return shown | {"networks": list(map(str, key.networks))}


def _row(key: StoredKey) -> list[str]:
    last = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
    whence = " ".join(map(str, key.networks)) or "anywhere"
    return [key.id, key.owner or "-", " ".join(key.scopes), whence, _state(key), last, key.name]


def _state(key: StoredKey) -> str:
    if key.is_valid:
        return f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "valid"
    return "revoked" if key.revoked_at else "expired"
