"""Where files are kept: a folder, S3 or Bunny, behind one interface, and read by others through signed URLs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Protocol

import httpx2

from app.config import Settings
from app.outbound.storage.bunny import TIMEOUT, BunnyStorage
from app.outbound.storage.objects import BucketStorage, FolderStorage
from app.outbound.storage.signing import UrlSigner


class Storage(Protocol):
    """Files by key. A key is checked by `checked_key`; what cannot be one is `Rejected`.

    Every method raises `Rejected` where asking again will not help, and `Unavailable` where it may.
    """

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store a file whole, in the place of one that is there."""
        ...

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """What the file holds; `Rejected` if there is none, or it has more than `max_bytes`."""
        ...

    async def delete(self, key: str) -> None:
        """Delete the file, if it is there."""
        ...

    async def signed_url(self, key: str, *, seconds: int) -> str:
        """A URL by which anybody can read the file for so many seconds.

        For files in a folder it is relative to the API: `/files/…`.
        """
        ...


@contextlib.asynccontextmanager
async def open_storage(settings: Settings) -> AsyncGenerator[Storage]:
    """Open the storage that `STORAGE_PROVIDER` names."""
    match settings.storage_provider:
        case "local":
            yield FolderStorage(settings.data_dir / "files", UrlSigner(settings))
        case "s3":
            yield BucketStorage(settings)
        case "bunny":
            async with httpx2.AsyncClient(timeout=TIMEOUT, trust_env=False) as http:
                yield BunnyStorage(settings, http)
