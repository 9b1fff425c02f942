"""What must not be in a log does not get there, whoever writes the line."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from app.config import Settings
from app.observability.logging import configure_logging

Format = Literal["json", "console"]
LONG = "canary" * 4
TOKEN = f"eyJhbGciOiJIUzI1NiJ9.{LONG}.{LONG}"


@contextlib.contextmanager
def configured(log_format: Format) -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure_logging(
        Settings(
            _env_file=None,
            log_format=log_format,
            database_url="postgresql://ada:canary-of-the-database@db/x",
            roadmap_ai_secret='canary "quoted" é',
            roadmap_ai_secret_previous='canary "quoted" é and longer',
            anthropic_api_key="sk-ant-canary",
            deepl_api_key="short",
        )
    )
    try:
        yield
    finally:
        root.handlers, root.level = before


KEY = "rl_live_0123456789ab_" + "canary0" * 6 + "x_0abcde"


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    ("told", "stays"),
    [
        ("the key sk-ant-canary is wrong", "the key *** is wrong"),
        ("password canary-of-the-database", "password ***"),
        ('secret canary "quoted" é, sent', "secret ***, sent"),
        ('secret canary "quoted" é and longer, sent', "secret ***, sent"),
        (f"a key: {KEY}.", "a key: rl_live_0123456789ab_***."),
        (f"whsec_{LONG}= signs", "whsec_*** signs"),
        (f"Bearer {TOKEN}", "Bearer eyJ***"),
        ("postgresql://ada:canary@db:5432/x is away", "postgresql://ada:***@db:5432/x is away"),
        ("smtp://:canary@mail", "smtp://:***@mail"),
        ("/files/a?expires=1&signature=canary&x=y", "/files/a?expires=1&signature=***&x=y"),
        # Nothing that is none.
        ("short rl_live_abc whsec_ eyJ see https://example.com/a:b@c", "short rl_live_abc whsec_ eyJ see https://example.com/a:b@c"),
    ],
)  # fmt: skip
def test_a_secret_leaves_a_line_and_the_rest_of_it_stays(
    capsys: pytest.CaptureFixture[str], log_format: Format, told: str, stays: str
) -> None:
    with configured(log_format):
        logging.getLogger("somebody.else").error("It was %s", told)
    line = capsys.readouterr().err
    assert f"It was {stays}" in (json.loads(line)["event"] if log_format == "json" else line)
    assert "canary" not in line


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_so_it_does_from_an_error_and_its_cause(capsys: pytest.CaptureFixture[str], log_format: Format) -> None:
    with configured(log_format):
        try:
            try:
                raise ValueError("postgresql://ada:canary@db/x")
            except ValueError as cause:
                raise OSError(f"sk-ant-canary, {KEY}") from cause
        except OSError:
            logging.getLogger("somebody.else").exception("It broke")
    printed = capsys.readouterr().err
    assert "ValueError" in printed
    assert "OSError" in printed
    assert "canary" not in printed
    assert KEY not in printed
