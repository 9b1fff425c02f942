"""Keys that may be sent from some networks only, and whom the API believes from where a request comes."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from tests.support import callers
from tests.support.callers import bearer
from tests.support.processes import api_process
from tests.support.workshop import Workshop

from app.access import keys
from app.access.keyring import KeyRing
from app.errors import Forbidden, Unauthorized

HERE = ["203.0.113.0/24", "198.51.100.7", "2001:db8::/64"]


@pytest.mark.parametrize(
    "address", ["203.0.113.0", "203.0.113.255", "198.51.100.7", "2001:db8::1", "::ffff:203.0.113.9"]
)
async def test_from_its_networks_a_key_is_a_key(workshop: Workshop, address: str) -> None:
    key = await callers.key(workshop.engine, "ada", networks=HERE)
    assert (await KeyRing(workshop.engine).principal(key.encode(), address)).owner == "ada"


@pytest.mark.parametrize(
    "address",
    ["203.0.114.0", "198.51.100.8", "2001:db8:0:1::1", "::ffff:198.51.100.8", "127.0.0.1", "", "proxy", None],
)
async def test_from_elsewhere_it_is_refused_and_told_to_its_owner_s_log(
    workshop: Workshop, address: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    key = await callers.key(workshop.engine, "ada", networks=HERE)
    with pytest.raises(Forbidden) as refused:
        await KeyRing(workshop.engine).principal(key.encode(), address)
    assert not address or address not in refused.value.detail
    id_ = keys.id_of(key.encode()) or ""
    assert f"Key {id_} was sent from" in caplog.text
    assert key not in caplog.text
    # That was no use of it.
    assert await workshop.value("SELECT last_used_at IS NULL FROM api_keys")


async def test_who_does_not_have_the_key_does_not_learn_where_it_may_be_used(workshop: Workshop) -> None:
    key = await callers.key(workshop.engine, "ada", networks=HERE)
    await keys.revoke(workshop.engine, keys.id_of(key.encode()) or "")
    with pytest.raises(Unauthorized):
        await KeyRing(workshop.engine).principal(key.encode(), "127.0.0.1")


async def status(url: str, key: str, forwarded: str | None) -> int:
    headers = bearer(key) | ({"x-forwarded-for": forwarded} if forwarded is not None else {})
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        return (await client.get("/runs", headers=headers)).status_code


async def test_a_proxy_of_ours_is_believed_and_nobody_before_it(workshop: Workshop, tmp_path: Path) -> None:
    key = await callers.key(workshop.engine, "ada", networks=HERE)
    async with api_process(workshop.settings, tmp_path / "log", FORWARDED_ALLOW_IPS="127.0.0.0/8") as (url, _):
        for forwarded, expected in (
            ("203.0.113.9", 200),
            ("203.0.113.9:4711", 200),
            ("198.51.100.99, 203.0.113.9", 200),
            ("203.0.113.9, 127.0.0.5", 200),
            # What a caller has said himself comes before what the proxy has added.
            ("203.0.113.9, 198.51.100.99", 403),
            ("203.0.113.9, nonsense", 403),
            ("", 403),
            (None, 403),
        ):
            assert await status(url, key, forwarded) == expected, forwarded


async def test_what_another_says_is_not_believed(workshop: Workshop, tmp_path: Path) -> None:
    key = await callers.key(workshop.engine, "ada", networks=HERE)
    own = await callers.key(workshop.engine, "ada", networks=["127.0.0.1"])
    async with api_process(workshop.settings, tmp_path / "log", FORWARDED_ALLOW_IPS="192.0.2.1") as (url, _):
        assert await status(url, key, "203.0.113.9") == 403
        assert await status(url, own, "203.0.113.9") == 200
