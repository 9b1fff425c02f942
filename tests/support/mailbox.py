"""A real SMTP server on loopback, which answers what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import email
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any, cast

from aiosmtpd.controller import Controller
from tests.support.processes import free_port


@dataclass
class Mailbox:
    """What arrived, and what the server says to each recipient and to each mail."""

    answer: str = "250 OK"
    refuses: dict[str, str] = field(default_factory=dict)
    got: list[EmailMessage] = field(default_factory=list)
    is_silent: bool = False
    asked: int = 0
    """How often it was given a recipient, whatever it has said to that."""
    url: str = ""

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802 - aiosmtpd's names
        self.asked += 1
        if self.is_silent:
            await asyncio.Event().wait()
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.got.append(cast(EmailMessage, email.message_from_bytes(envelope.content, policy=SMTP)))
        return self.answer


@contextlib.contextmanager
def mailbox(answer: str = "250 OK", **refuses: str) -> Iterator[Mailbox]:
    """A server that answers this to each mail; `bob="550 No"` is its answer to the recipient bob@example.com."""
    box = Mailbox(answer, {f"{name}@example.com": said for name, said in refuses.items()})
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    box.url = f"smtp://127.0.0.1:{controller.port}"
    try:
        yield box
    finally:
        controller.stop()
