"""Where files are kept: a folder, S3 or Bunny, behind one interface, and read by others through signed URLs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import httpx2

from app.config import Settings
from app.outbound.storage.bunny import TIMEOUT, BunnyStorage
from app.outbound.storage.interface import Storage
from app.outbound.storage.objects import BucketStorage, FolderStorage
from app.outbound.storage.signing import UrlSigner


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
