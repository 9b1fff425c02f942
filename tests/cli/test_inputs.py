"""`-i`, without a process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli.inputs import read_params


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("text=hello world", "hello world"),
        ("text=", ""),
        ("text=a=b", "a=b"),
        ("text=3", 3),
        ("text=true", True),
        ("text=null", None),
        ('text="3"', "3"),
        ('text={"deep": [1, 2]}', {"deep": [1, 2]}),
        ("text=NaN", "NaN"),
        ("text=-Infinity", "-Infinity"),
        ("text=https://example.com/?a=1", "https://example.com/?a=1"),
    ],
)
def test_a_value_is_json_if_it_is_json_and_else_text(written: str, read: Any) -> None:
    assert read_params([written]) == {"text": read}


def test_a_file_is_an_object_of_params_or_the_text_of_one(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text('{"a": 1, "b": 2}')
    (tmp_path / "letter.txt").write_text("Dear Ada,\n3")
    assert read_params([f"@{tmp_path}/params.json"]) == {"a": 1, "b": 2}
    assert read_params([f"letter=@{tmp_path}/letter.txt"]) == {"letter": "Dear Ada,\n3"}


def test_a_dash_is_an_object_on_stdin_and_a_later_input_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1, "b": 2}'))
    assert read_params(["a=0", "-", "b=3"]) == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    "written", ["text", "=x", "@/nowhere.json", "text=@/nowhere.txt", "text=1e999", "a=\udcff", "@."]
)
def test_what_cannot_be_read_is_wrong_usage(written: str) -> None:
    with pytest.raises(typer.BadParameter):
        read_params([written])


@pytest.mark.parametrize("content", [b"not json", b"[1]", b'{"a": NaN}', b"\xff"])
def test_a_file_that_is_no_json_object_is_wrong_usage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.json").write_bytes(content)
    with pytest.raises(typer.BadParameter):
        read_params([f"@{tmp_path}/params.json"])
