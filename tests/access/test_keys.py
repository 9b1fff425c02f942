"""API keys: shown once, stored as what they cannot be made from again, and revoked everywhere within seconds."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.cli.conftest import Terminal, alone
from tests.support import callers
from tests.support.workshop import Workshop

from app.access import keyring, keys
from app.access.keyring import REMEMBERED_SECONDS, KeyRing
from app.access.principal import Principal, Scope
from app.errors import Unauthorized

__all__ = ["alone"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_with_a_typing_error_is_no_key() -> None:
    key = keys.new_key("live")
    assert key.startswith("rl_live_")
    assert keys.id_of(key.encode()) == key.split("_")[2]
    for place in range(len(key)):
        typo = key[:place] + ("x" if key[place] != "x" else "y") + key[place + 1 :]
        assert keys.id_of(typo.encode()) is None, typo
    for sent in (b"", b"rl_", key.encode() + b"\n", b" " + key.encode(), key.encode("utf-16"), b"rl_live_\xff"):
        assert keys.id_of(sent) is None


def test_no_two_keys_are_alike() -> None:
    made = [keys.new_key("live") for _ in range(1000)]
    assert len({key.split("_")[2] for key in made}) == len({key.split("_")[3] for key in made}) == 1000


async def test_the_database_does_not_know_a_key(workshop: Workshop) -> None:
    key = await callers.key(workshop.engine, "ada", name="sheet")
    (row,) = await workshop.fetch("SELECT api_keys::text AS dump, * FROM api_keys")
    secret = key.split("_")[3]
    assert secret not in row["dump"]
    assert secret.encode().hex() not in row["dump"]
    assert row["digest"] == keys.digest_of(key.encode())


async def test_a_key_is_its_owner_s_and_an_administrator_s_is_nobody_s(engine: AsyncEngine) -> None:
    ring = KeyRing(engine)
    own, admin = await callers.key(engine, "ada", Scope.READ), await callers.key(engine, None, Scope.ADMIN)
    assert await ring.principal(own.encode(), None) == Principal(
        f"key:{keys.id_of(own.encode())}", "ada", frozenset({Scope.READ})
    )
    assert (await ring.principal(admin.encode(), None)).owner is None


async def test_a_revoked_key_is_refused_by_every_process_within_seconds(engine: AsyncEngine) -> None:
    clock = Clock()
    rings = [KeyRing(engine, clock) for _ in range(3)]
    key = await callers.key(engine, "ada")
    for ring in rings:
        assert (await ring.principal(key.encode(), None)).owner == "ada"
    assert await keys.revoke(engine, keys.id_of(key.encode()) or "")
    clock.now += REMEMBERED_SECONDS
    for ring in rings:
        with pytest.raises(Unauthorized, match="revoked"):
            await ring.principal(key.encode(), None)
    assert REMEMBERED_SECONDS <= 5


async def test_a_key_expires_by_the_clock_of_the_database(workshop: Workshop) -> None:
    key = (await callers.key(workshop.engine, "ada")).encode()
    await workshop.execute("UPDATE api_keys SET expires_at = now() + interval '1 hour'")
    assert (await KeyRing(workshop.engine).principal(key, None)).owner == "ada"
    await workshop.execute("UPDATE api_keys SET expires_at = now()")
    with pytest.raises(Unauthorized, match="expired"):
        await KeyRing(workshop.engine).principal(key, None)


async def test_an_id_without_its_secret_and_an_unknown_id_are_told_apart_by_nobody(engine: AsyncEngine) -> None:
    ring = KeyRing(engine)
    known = (await callers.key(engine, "ada")).split("_")
    body = "_".join([*known[:3], keys.new_key("test").split("_")[3]])
    told = set()
    for sent in (f"{body}_{keys._checksum(body.encode())}", keys.new_key("test"), "rl_test_nonsense"):
        with pytest.raises(Unauthorized) as refused:
            await ring.principal(sent.encode(), None)
        told.add(refused.value.detail)
    assert len(told) == 1


async def test_the_database_is_asked_once_in_two_seconds_and_the_last_use_written_once_a_minute(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("get_key", "touch_key"):
        real = getattr(keyring.queries, name)

        async def noted(*arguments: Any, real: Any = real, name: str = name) -> Any:
            asked.append(name)
            return await real(*arguments)

        monkeypatch.setattr(keyring.queries, name, noted)
    clock = Clock()
    ring, key = KeyRing(workshop.engine, clock), (await callers.key(workshop.engine, "ada")).encode()
    for _ in range(5):
        await ring.principal(key, None)
    assert asked == ["get_key", "touch_key"]
    clock.now += REMEMBERED_SECONDS
    await ring.principal(key, None)
    assert asked == ["get_key", "touch_key", "get_key"]
    await workshop.execute("UPDATE api_keys SET last_used_at = now() - interval '61 seconds'")
    await KeyRing(workshop.engine).principal(key, None)
    assert await workshop.value("SELECT last_used_at > now() - interval '10 seconds' FROM api_keys")


def test_the_command_line_makes_lists_and_revokes_keys(alone: Terminal) -> None:
    made = alone.json("keys", "create", "--owner", "ada", "--name", "sheet", "--days", "30")
    assert made["key"].startswith(f"rl_test_{made['id']}_")
    plain = alone.run("keys", "create", "--owner", "bob", "--scope", "runs:read")
    assert keys.id_of(plain.stdout.strip().encode())
    assert "not shown again" in plain.stderr
    bob, ada = alone.json("keys", "list")
    assert (ada["id"], ada["owner"], ada["name"]) == (made["id"], "ada", "sheet")
    assert ada["scopes"] == ["runs:read", "runs:write"]
    assert (bob["owner"], bob["scopes"], bob["is_valid"], bob["expires_at"]) == ("bob", ["runs:read"], True, None)
    assert made["key"] not in alone.run("keys", "list").stdout
    assert alone.json("keys", "create", "--owner", "ada", "--scope", "actions:echo")["scopes"] == ["actions:echo"]
    narrow = ("--network", "203.0.113.0/24", "--network", "2001:db8::7")
    assert alone.json("keys", "create", "--owner", "ada", *narrow)["networks"] == ["203.0.113.0/24", "2001:db8::7/128"]
    assert alone.json("keys", "list")[0]["networks"] == ["203.0.113.0/24", "2001:db8::7/128"]
    shown = alone.run("keys", "list").stdout.splitlines()
    assert "203.0.113.0/24 2001:db8::7/128" in shown[1]
    assert "anywhere" in shown[2]
    assert alone.run("keys", "revoke", alone.json("keys", "list")[0]["id"]).code == 0
    assert alone.run("keys", "revoke", ada["id"]).code == 0
    assert [key["is_valid"] for key in alone.json("keys", "list")] == [False, True, True, False]
    assert alone.run("keys", "revoke", "nothing").code == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 1),
        (["--owner", "ada", "--scope", "admin"], 1),
        (["--owner", "a\nb"], 1),
        (["--owner", "a" * 256], 1),
        (["--owner", "ada", "--scope", "everything"], 2),
        (["--owner", "ada", "--scope", "actions:"], 2),
        (["--owner", "ada", "--scope", "actions:Not An Action"], 2),
        (["--scope", "actions:echo"], 1),
        (["--owner", "ada", "--days", "0"], 2),
        (["--owner", "ada", "--network", "203.0.113.7/24"], 2),
        (["--owner", "ada", "--network", "office.example"], 2),
        (["--owner", "ada", "--network", ""], 2),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(alone: Terminal, arguments: list[str], code: int) -> None:
    assert alone.run("keys", "create", *arguments).code == code
    assert alone.json("keys", "list") == []
