"""Secrets as they are stored: encrypted where there is a key, else as they are."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.errors import Unavailable

PREFIX = "whsec_"
"""What every secret begins with, and nothing that is encrypted."""


class Seal:
    """Encrypts with the first of the keys, and decrypts with whichever fits.

    Args:
        keys: Fernet keys, the newest first; without any, secrets are stored as they are.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys]) if keys else None

    def close(self, secret: str) -> str:
        """The secret as it is stored."""
        return secret if self._fernet is None else self._fernet.encrypt(secret.encode()).decode()

    def open(self, stored: str) -> str:
        """The secret as it signs; one that was stored before there was a key is as it is.

        Raises:
            Unavailable: it was encrypted with a key that this process does not have.
        """
        if stored.startswith(PREFIX):
            return stored
        try:
            if self._fernet is not None:
                return self._fernet.decrypt(stored).decode()
        except InvalidToken:
            pass
        raise Unavailable("The secret of the endpoint cannot be read: set WEBHOOK_KEY as when it was stored.")
