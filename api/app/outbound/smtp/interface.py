"""What sends mail, however it goes."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import EmailMessage
from typing import Protocol


class Mailer(Protocol):
    """Sends one mail at a time."""

    @property
    def sender(self) -> str:
        """The address that mail comes from."""
        ...

    async def send(self, message: EmailMessage, to: Sequence[str]) -> list[str]:
        """Send a message, which has its `Message-ID`.

        Returns:
            The addresses that were refused, if others were not.

        Raises:
            Unavailable: nobody got it, and later somebody may.
            Rejected: nobody will.
        """
        ...
