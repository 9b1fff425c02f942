"""Files at Bunny: its edge storage over HTTP, read through a pull zone with signed URLs.

https://docs.bunny.net/storage/http, https://docs.bunny.net/docs/cdn-token-authentication
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import httpx2

from app.config import Settings
from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.neighbour import Neighbour
from app.outbound.patience import retry_after
from app.outbound.storage.keys import checked_key, no_such_file, too_large

TIMEOUT = httpx2.Timeout(30, connect=5)
PATIENCE_SECONDS = 10.0
"""After a 429 that does not say how long."""


class BunnyStorage:
    """Files in one storage zone."""

    def __init__(self, settings: Settings, http: httpx2.AsyncClient) -> None:
        key = settings.bunny_api_key
        token_key = settings.bunny_token_auth_key
        assert key is not None and token_key is not None and settings.bunny_cdn_base_url is not None
        self._base = f"{settings.bunny_storage_endpoint.rstrip('/')}/{settings.bunny_zone}"
        self._cdn = settings.bunny_cdn_base_url.rstrip("/")
        self._token_key = token_key.get_secret_value()
        self._headers = {"AccessKey": key.get_secret_value()}
        self._http = http
        self._neighbour = Neighbour("storage")

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store a file whole, in the place of one that is there."""
        async with self._asked("PUT", key, content=data, headers={"Content-Type": content_type}):
            pass

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """What the file holds."""
        data = bytearray()
        async with self._asked("GET", key) as response:
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > max_bytes:
                    raise too_large(key, max_bytes)
        return bytes(data)

    async def delete(self, key: str) -> None:
        """Delete the file, if it is there."""
        async with self._asked("DELETE", key, may_be_missing=True):
            pass

    async def signed_url(self, key: str, *, seconds: int) -> str:
        """A URL of the pull zone."""
        url, expires = f"{self._cdn}/{checked_key(key)}", int(time.time()) + seconds
        digest = hashlib.sha256(f"{self._token_key}{urlsplit(url).path}{expires}".encode()).digest()
        token = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return f"{url}?token={token}&expires={expires}"

    @contextlib.asynccontextmanager
    async def _asked(
        self,
        method: str,
        key: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        may_be_missing: bool = False,
    ) -> AsyncGenerator[httpx2.Response]:
        url = f"{self._base}/{checked_key(key)}"
        async with self._neighbour.call():
            try:
                async with self._http.stream(
                    method, url, content=content, headers=self._headers | (headers or {})
                ) as response:
                    if not (may_be_missing and response.status_code == 404):
                        _check(response, key)
                    yield response
            except httpx2.HTTPError as fault:
                raise Unavailable(f"Bunny cannot be reached or broke off ({type(fault).__name__}).") from fault


def _check(response: httpx2.Response, key: str) -> None:
    match response.status_code:
        case status if status < 300:
            return
        case 404:
            raise no_such_file(key)
        case 401 | 403:
            raise Rejected("Bunny does not let us in. Look at BUNNY_API_KEY, BUNNY_ZONE and BUNNY_STORAGE_ENDPOINT.")
        case 429:
            wait = retry_after(response.headers.get("Retry-After", ""), time.time())
            raise RateLimited("Bunny asks for patience.", retry_after=PATIENCE_SECONDS if wait is None else wait)
        case status if status >= 500:
            raise Unavailable(f"Bunny answered {status}.")
        case status:
            raise Rejected(f"Bunny answered {status}. Look at BUNNY_STORAGE_ENDPOINT, which is the zone's region's.")
