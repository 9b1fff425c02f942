"""Whose files are whose: what is uploaded lies in the room of its owner, and no run of another sees it there."""

from __future__ import annotations

import hashlib

from app.outbound.storage.interface import Storage
from app.outbound.storage.keys import no_such_file

UPLOADS = "uploads"


def room_of(owner: str | None) -> str:
    """How the keys of an owner's uploads begin."""
    return f"{UPLOADS}/{hashlib.sha256((owner or '').encode()).hexdigest()[:16]}"


class OwnFiles:
    """A storage as the runs of one owner see it: in the rooms of others there is nothing.

    What actions keep outside of all rooms is there for every run.
    """

    def __init__(self, storage: Storage, owner: str) -> None:
        self._storage = storage
        self._room = room_of(owner)

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store a file."""
        await self._storage.put(self._seen(key), data, content_type)

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """What a file holds."""
        return await self._storage.get(self._seen(key), max_bytes=max_bytes)

    async def delete(self, key: str) -> None:
        """Delete a file."""
        await self._storage.delete(self._seen(key))

    async def signed_url(self, key: str, *, seconds: int) -> str:
        """A URL by which anybody can read a file."""
        return await self._storage.signed_url(self._seen(key), seconds=seconds)

    def _seen(self, key: str) -> str:
        # Some file systems know no capital letters.
        is_in_a_room = key.lower().startswith(f"{UPLOADS}/")
        if is_in_a_room and not key.startswith(f"{self._room}/"):
            raise no_such_file(key)
        return key
