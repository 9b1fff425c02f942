"""What a storage of files can do, whoever keeps them."""

from __future__ import annotations

from typing import Protocol


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
