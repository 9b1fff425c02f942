"""Send mail: over SMTP, or into a folder of `.eml` files where there is no server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator, Sequence
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiosmtplib
from aiosmtplib import (
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
)

from app.config import LOOPBACK, Settings
from app.errors import ActionError, Rejected, Unavailable
from app.outbound.neighbour import Neighbour
from app.outbound.smtp.interface import Mailer

TIMEOUT_SECONDS = 60.0
"""For everything about one mail."""
_LONGEST_ANSWER = 300


class SmtpMailer:
    """Sends over the server of `SMTP_URL`, with a connection a mail."""

    def __init__(self, settings: Settings) -> None:
        assert settings.smtp_url is not None
        self.sender = settings.mail_from
        url = urlsplit(settings.smtp_url.get_secret_value())
        self._host = url.hostname or ""
        self._use_tls = url.scheme == "smtps"
        self._port = url.port or (465 if self._use_tls else 587)
        self._username = unquote(url.username) if url.username else None
        self._password = unquote(url.password) if url.password else None
        # `None`: if the server offers it. A password is not sent in the clear because somebody has cut the offer out.
        must_hide = self._username is not None and self._host not in LOOPBACK and not self._use_tls
        self._start_tls = True if must_hide else None
        self._neighbour = Neighbour("smtp")

    async def send(self, message: EmailMessage, to: Sequence[str]) -> list[str]:
        """Send a message."""
        async with self._neighbour.call():
            with _faults_as_errors():
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    refused, _ = await aiosmtplib.send(
                        message,
                        sender=self.sender,
                        recipients=list(to),
                        hostname=self._host,
                        port=self._port,
                        username=self._username,
                        password=self._password,
                        use_tls=self._use_tls,
                        start_tls=self._start_tls,
                        timeout=TIMEOUT_SECONDS,
                    )
        return sorted(refused)


class Outbox:
    """Writes what would be sent to `outbox` in `data_dir`, a file a `Message-ID`."""

    def __init__(self, settings: Settings) -> None:
        self.sender = settings.mail_from
        self._folder = settings.data_dir / "outbox"

    async def send(self, message: EmailMessage, to: Sequence[str]) -> list[str]:  # noqa: ARG002 - it is in the message
        """Write a message."""
        name = "".join(letter if letter.isalnum() or letter in "@._-" else "_" for letter in message["Message-ID"])
        await asyncio.to_thread(self._write, self._folder / f"{name.strip('_')}.eml", bytes(message))
        return []

    def _write(self, file: Path, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_bytes(content)


class NoMailer:
    """Where there is neither a server nor an outbox."""

    def __init__(self, settings: Settings) -> None:
        self.sender = settings.mail_from

    async def send(self, message: EmailMessage, to: Sequence[str]) -> list[str]:  # noqa: ARG002 - nothing is sent
        """Say what is missing."""
        raise Rejected("There is no mail server. Set SMTP_URL, such as smtp://user:password@mail.example.com:587.")


def make_mailer(settings: Settings) -> Mailer:
    """The mailer that the settings ask for."""
    if settings.stubs(settings.smtp_url):
        return Outbox(settings)
    return NoMailer(settings) if settings.smtp_url is None else SmtpMailer(settings)


@contextlib.contextmanager
def _faults_as_errors() -> Generator[None]:
    try:
        yield
    except SMTPRecipientsRefused as refused:
        first = min(refused.recipients, key=lambda each: each.code)
        raise _answered(first.code, f"{first.recipient}: {first.message}") from refused
    except SMTPResponseException as answer:
        raise _answered(answer.code, answer.message) from answer
    except SMTPNotSupported as lacking:
        raise Rejected(f"The mail server cannot do what SMTP_URL asks for: {lacking}") from lacking
    except (SMTPException, OSError) as fault:  # timeouts are both
        raise Unavailable(f"The mail server cannot be reached or broke off ({type(fault).__name__}).") from fault


def _answered(code: int, text: str) -> ActionError:
    said = f"The mail server answered {code}: {' '.join(text.split())[:_LONGEST_ANSWER]}"
    return Rejected(said) if code >= 500 else Unavailable(said)
