"""URLs that are themselves the permission to read one file for a while, for files in a folder."""

from __future__ import annotations

import base64
import contextlib
import functools
import hmac
import os
import secrets
import time
from pathlib import Path
from urllib.parse import urlencode

from app.config import Settings
from app.errors import Rejected

_KEY_FILE = "storage-signing-key"


class UrlSigner:
    """Makes and checks signatures; API and workers must have the same key."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def sign(self, key: str, *, seconds: int) -> str:
        """The URL of the file, relative to the API, valid for so many seconds.

        Raises:
            Rejected: production has no STORAGE_SIGNING_KEY.
        """
        expires = str(int(time.time()) + seconds)
        return f"/files/{key}?{urlencode({'expires': expires, 'signature': self._signature(key, expires)})}"

    def is_signed(self, key: str, *, expires: str, signature: str) -> bool:
        """Whether `sign` has made this, and its time is not over."""
        if not (expires.isascii() and expires.isdigit() and len(expires) < 16 and signature.isascii()):
            return False
        return int(expires) > time.time() and hmac.compare_digest(signature, self._signature(key, expires))

    def _signature(self, key: str, expires: str) -> str:
        digest = hmac.digest(self._secret, f"{expires}\n{key}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    @functools.cached_property
    def _secret(self) -> bytes:
        if self._settings.storage_signing_key is not None:
            return self._settings.storage_signing_key.get_secret_value().encode()
        if self._settings.environment == "production":
            raise Rejected(
                "URLs of files cannot be signed. Set STORAGE_SIGNING_KEY, the same for API and workers: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        return _kept_secret(self._settings.data_dir / _KEY_FILE)


def _kept_secret(path: Path) -> bytes:
    """The secret in that file, which is made if it is not there: by one process, however many ask at once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
        # A link appears whole, and not over another.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_bytes()
