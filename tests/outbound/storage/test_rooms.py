"""What is uploaded lies in the room of its owner."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import Settings
from app.errors import Rejected
from app.outbound.storage.client import open_storage
from app.outbound.storage.rooms import OwnFiles, room_of


async def test_whatever_is_done_to_a_file_of_another_it_is_not_there(tmp_path: Path) -> None:
    async with open_storage(Settings(_env_file=None, environment="test", data_dir=tmp_path)) as everybodys:
        hers = f"{room_of('ada')}/1/a.txt"
        ada, bob = OwnFiles(everybodys, "ada"), OwnFiles(everybodys, "bob")
        await ada.put(hers, b"hello", "text/plain")
        for attempt in (
            bob.get(hers, max_bytes=10),
            bob.put(hers, b"", "text/plain"),
            bob.delete(hers),
            bob.signed_url(hers, seconds=60),
        ):
            with pytest.raises(Rejected, match="There is no file"):
                await attempt
        assert await ada.get(hers, max_bytes=10) == b"hello"
        assert "signature" in await ada.signed_url(hers, seconds=60)
        await ada.delete(hers)
        with pytest.raises(Rejected, match="There is no file"):
            await ada.get(hers, max_bytes=10)


async def test_what_lies_in_no_room_is_there_for_all(tmp_path: Path) -> None:
    async with open_storage(Settings(_env_file=None, environment="test", data_dir=tmp_path)) as everybodys:
        await OwnFiles(everybodys, "ada").put("reports/2026.txt", b"hello", "text/plain")
        assert await OwnFiles(everybodys, "bob").get("reports/2026.txt", max_bytes=10) == b"hello"


def test_each_owner_has_a_room_and_nobody_has_one_too() -> None:
    assert len({room_of(owner) for owner in ("ada", "Ada", "ada/", None)}) == 4
