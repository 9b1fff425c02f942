"""Files in a folder of this machine, or in a bucket of whoever speaks S3."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

from app.config import Settings
from app.errors import Rejected, Unavailable
from app.outbound.neighbour import Neighbour
from app.outbound.storage.keys import checked_key, no_such_file, too_large
from app.outbound.storage.signing import UrlSigner

if TYPE_CHECKING:
    from obstore.store import S3Config

TIMEOUT = timedelta(seconds=30)
CONNECT_TIMEOUT = timedelta(seconds=5)


class FolderStorage:
    """Files in a folder, which is made when the first is put there. No link in it is followed."""

    def __init__(self, folder: Path, signer: UrlSigner) -> None:
        self._folder = folder.resolve()
        self._signer = signer

    async def put(self, key: str, data: bytes, content_type: str) -> None:  # noqa: ARG002 - a folder has no place for it
        """Store a file whole, in the place of one that is there."""
        self._check_is_inside(key)
        with _faults_as_errors(key):
            await obstore.put_async(self._store, key, data)

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """What the file holds."""
        self._check_is_inside(key)
        with _faults_as_errors(key):
            return await _read(self._store, key, max_bytes)

    async def delete(self, key: str) -> None:
        """Delete the file, if it is there."""
        self._check_is_inside(key)
        with _faults_as_errors(key), contextlib.suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)

    async def signed_url(self, key: str, *, seconds: int) -> str:
        """A URL relative to the API, which serves it."""
        return self._signer.sign(checked_key(key), seconds=seconds)

    def is_signed(self, key: str, *, expires: str, signature: str) -> bool:
        """Whether `signed_url` has made this, and its time is not over."""
        return self._signer.is_signed(key, expires=expires, signature=signature)

    def _check_is_inside(self, key: str) -> None:
        place = self._folder / checked_key(key)
        if place.resolve() != place:
            raise no_such_file(key)

    @functools.cached_property
    def _store(self) -> LocalStore:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalStore(self._folder)


class BucketStorage:
    """Files in a bucket."""

    def __init__(self, settings: Settings) -> None:
        assert settings.storage_bucket is not None
        secret = settings.storage_secret_key
        given = {
            "endpoint": settings.storage_endpoint_url,
            "access_key_id": settings.storage_access_key,
            "secret_access_key": secret and secret.get_secret_value(),
        }
        self._store = S3Store(
            settings.storage_bucket,
            config=cast("S3Config", {name: value for name, value in given.items() if value is not None}),
            region=settings.storage_region,
            virtual_hosted_style_request=False,
            client_options={"timeout": TIMEOUT, "connect_timeout": CONNECT_TIMEOUT, "allow_http": True},
            # The run retries.
            retry_config={"max_retries": 0},
        )
        self._neighbour = Neighbour("storage")

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store a file whole, in the place of one that is there."""
        checked_key(key)
        async with self._neighbour.call():
            with _faults_as_errors(key):
                await obstore.put_async(self._store, key, data, attributes={"Content-Type": content_type})

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """What the file holds."""
        checked_key(key)
        async with self._neighbour.call():
            with _faults_as_errors(key):
                return await _read(self._store, key, max_bytes)

    async def delete(self, key: str) -> None:
        """Delete the file, if it is there."""
        checked_key(key)
        async with self._neighbour.call():
            with _faults_as_errors(key):
                await obstore.delete_async(self._store, key)

    async def signed_url(self, key: str, *, seconds: int) -> str:
        """A URL of the bucket."""
        checked_key(key)
        with _faults_as_errors(key):
            return await obstore.sign_async(self._store, "GET", key, timedelta(seconds=seconds))


async def _read(store: LocalStore | S3Store, key: str, max_bytes: int) -> bytes:
    found = await obstore.get_async(store, key)
    if found.meta["size"] > max_bytes:
        raise too_large(key, max_bytes)
    return bytes(await found.bytes_async())


@contextlib.contextmanager
def _faults_as_errors(key: str) -> Generator[None]:
    # The library's messages are its own insides, over many lines.
    try:
        yield
    except FileNotFoundError:
        raise no_such_file(key) from None
    except (PermissionDeniedError, UnauthenticatedError) as refused:
        raise Rejected(
            "The storage does not let us in. Look at STORAGE_ACCESS_KEY, STORAGE_SECRET_KEY and STORAGE_BUCKET, "
            "or at whom the folder belongs to."
        ) from refused
    except (BaseError, OSError) as fault:
        raise Unavailable(f"The storage does not answer as it should ({type(fault).__name__}).") from fault
