"""Mail arrives as it was written, once, and what the server says decides whether to try again."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.mailbox import mailbox
from tests.support.processes import free_port

from app.config import Settings
from app.domain.mail.message import Mail, compose
from app.errors import Rejected, Unavailable
from app.outbound.smtp.client import make_mailer
from app.outbound.smtp.interface import Mailer

PNG = b"\x89PNG\r\n\x1a\n.\r\n" + bytes(range(256))


def mailer(folder: Path, url: str | None = None, **settings: Any) -> Mailer:
    given = {"environment": "test", "data_dir": folder, "smtp_url": url, "mail_from": "us@example.com"} | settings
    return make_mailer(Settings(_env_file=None, **given))


def message(**parts: Any) -> Any:
    mail = Mail.model_validate({"to": ["ada@example.com"], "subject": "Grüße 漢", "text": "Zeile\n.\nпривет\n"} | parts)
    return compose(
        mail, {"a/b.png": PNG}, sender="us@example.com", message_id="<run@example.com>", date=datetime.now(UTC)
    )


async def test_text_html_and_file_arrive_as_they_were_sent(tmp_path: Path) -> None:
    with mailbox() as box:
        refused = await mailer(tmp_path, box.url).send(message(html="<p>привет"), ["ada@example.com"])
    [got] = box.got
    assert refused == []
    assert (got["Subject"], got["From"], got["To"]) == ("Grüße 漢", "us@example.com", "ada@example.com")
    assert got["Message-ID"] == "<run@example.com>"
    text, html = got.get_body(("plain",)), got.get_body(("html",))
    assert text is not None and text.get_content().replace("\r\n", "\n") == "Zeile\n.\nпривет\n"
    assert html is not None and html.get_content().strip() == "<p>привет"
    [file] = got.iter_attachments()
    assert (file.get_filename(), file.get_content_type(), file.get_content()) == ("b.png", "image/png", PNG)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("421 Too many connections", Unavailable),
        ("451 Greylisted, come again", Unavailable),
        ("452 Mailbox full", Unavailable),
        ("550 Spam is not wanted", Rejected),
        ("552 Too large", Rejected),
    ],
)
async def test_the_server_s_answer_says_whether_to_try_again(
    answer: str, error: type[Exception], tmp_path: Path
) -> None:
    with mailbox(answer) as box, pytest.raises(error, match=answer.replace(" ", ": ", 1)) as caught:
        await mailer(tmp_path, box.url).send(message(), ["ada@example.com"])
    assert type(caught.value) is error


async def test_who_is_refused_is_told_while_others_get_it(tmp_path: Path) -> None:
    with mailbox(bob="550 Nobody here", eve="450 Not now") as box:
        to = ["ada@example.com", "bob@example.com"]
        assert await mailer(tmp_path, box.url).send(message(), to) == ["bob@example.com"]
        with pytest.raises(Rejected, match=r"550: bob@example\.com: Nobody here"):
            await mailer(tmp_path, box.url).send(message(), ["bob@example.com"])
        # Who may take it later is waited for.
        with pytest.raises(Unavailable, match="450"):
            await mailer(tmp_path, box.url).send(message(), ["bob@example.com", "eve@example.com"])
    assert len(box.got) == 1


async def test_nobody_there_and_a_server_that_says_nothing_are_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await mailer(tmp_path, f"smtp://127.0.0.1:{free_port()}").send(message(), ["ada@example.com"])

    monkeypatch.setattr("app.outbound.smtp.client.TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unavailable, match="cannot be reached or broke off"):
            await mailer(tmp_path, f"smtp://127.0.0.1:{port}").send(message(), ["ada@example.com"])


async def test_without_a_server_mail_is_a_file_in_development_and_an_error_in_production(tmp_path: Path) -> None:
    await mailer(tmp_path).send(message(), ["ada@example.com"])
    await mailer(tmp_path).send(message(), ["ada@example.com"])
    [file] = (tmp_path / "outbox").iterdir()
    assert file.name == "run@example.com.eml"
    assert b"Message-ID: <run@example.com>" in file.read_bytes()
    with pytest.raises(Rejected, match="Set SMTP_URL"):
        await mailer(tmp_path, environment="production").send(message(), ["ada@example.com"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": "a\r\nBcc: eve@example.com"},
        {"subject": "a\u2028b"},
        {"to": ["ada@example.com\r\nBcc: eve@example.com"]},
        {"to": ["ada@example.com, eve@example.com"]},
        {"to": ["Ada <ada@example.com>"]},
        {"to": []},
        {"to": ["ada@example.com"] * 51},
        {"from": "eve@example.com"},
    ],
)
def test_a_mail_that_would_have_other_headers_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        message(**wrong)


@pytest.mark.parametrize("url", ["http://mail", "smtp://", "mail.example.com", "smtp://host:port"])
def test_an_smtp_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValidationError, match="must look like smtp://user:password@host:587"):
        Settings(_env_file=None, smtp_url=url)
