"""A mail: text, HTML and files, sent once."""

from __future__ import annotations

import mimetypes
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.config import ADDRESS
from app.domain.journal import Journal
from app.errors import Rejected
from app.outbound.smtp.interface import Mailer
from app.outbound.storage.interface import Storage

LARGEST_FILES_BYTES = 20 * 1024 * 1024
"""Of all files of one mail together; most servers take no more."""

# What old servers can carry, too.
_POLICY = SMTP.clone(cte_type="7bit")

Address = Annotated[
    str,
    StringConstraints(pattern=ADDRESS),
    Field(max_length=254),
]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f\u0085\u2028\u2029]*$")]
"""Without an end of line, after which another header would begin."""
FileKey = Annotated[str, Field(min_length=1, max_length=512, examples=["uploads/…/report.pdf"])]


class Mail(BaseModel):
    """What to send to whom."""

    model_config = ConfigDict(extra="forbid")

    to: Annotated[list[Address], Field(min_length=1, max_length=50, examples=[["ada@example.com"]])]
    subject: Annotated[Line, Field(min_length=1, max_length=200, examples=["Your report"])]
    text: Annotated[str, Field(min_length=1, max_length=500_000, examples=["Here it is."])]
    html: Annotated[str | None, Field(max_length=1_000_000, examples=["<p>Here it <b>is</b>.</p>"])] = None
    """The same for those who read HTML."""
    attachments: Annotated[list[FileKey], Field(max_length=20, examples=[[]])] = []
    """Keys of stored files, as `POST /files` and `process_file` give them."""


class MailSent(BaseModel):
    """What the mail server took."""

    message_id: str
    """The same at every attempt, so that who gets it twice can tell."""
    bytes: int
    refused: list[str]
    """Addresses that the server did not take, while it took others."""


async def send_mail(journal: Journal, run_id: str, mail: Mail, mailer: Mailer, storage: Storage) -> MailSent:
    """Send the mail of a run, once.

    Raises:
        Unavailable: try again later.
        Rejected: a file is missing or too large, or the server will not take the mail.
    """
    return await journal.step("send", _send, run_id, mail, mailer, storage)


async def _send(run_id: str, mail: Mail, mailer: Mailer, storage: Storage) -> MailSent:
    message_id = f"<{run_id}@{mailer.sender.rpartition('@')[2]}>"
    files = await _read(mail.attachments, storage)
    message = compose(mail, files, sender=mailer.sender, message_id=message_id, date=datetime.now(UTC))
    refused = await mailer.send(message, mail.to)
    return MailSent(message_id=message_id, bytes=len(bytes(message)), refused=refused)


async def _read(keys: list[str], storage: Storage) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for key in keys:
        left = LARGEST_FILES_BYTES - sum(map(len, files.values()))
        if left <= 0:
            raise Rejected(f"The files have more than {LARGEST_FILES_BYTES} bytes together. Send fewer in one mail.")
        files[key] = await storage.get(key, max_bytes=left)
    return files


def compose(mail: Mail, files: dict[str, bytes], *, sender: str, message_id: str, date: datetime) -> EmailMessage:
    """The mail as MIME; files by their keys."""
    message = EmailMessage(policy=_POLICY)
    message["From"] = sender
    message["To"] = ", ".join(mail.to)
    message["Subject"] = mail.subject
    message["Date"] = date
    message["Message-ID"] = message_id
    # No mail that says "I am away" in answer to this.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    if mail.html is not None:
        message.add_alternative(mail.html, subtype="html")
    for key, data in files.items():
        name = key.rpartition("/")[2]
        main, _, sub = (mimetypes.guess_type(name)[0] or "application/octet-stream").partition("/")
        message.add_attachment(data, maintype=main, subtype=sub, filename=name)
    return message
