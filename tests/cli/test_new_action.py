"""`runledger new-action`, in a copy of the tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.failure import Failure
from app.cli.new_action import add_action
from app.config import ROOT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the generator and the generated test need of the repository."""
    for name in ("api", "tests", "examples"):
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_what_it_writes_is_an_action_whose_test_passes(tree: Path) -> None:
    made = call("app.cli", "new-action", "summarise_page", cwd=tree / "api")
    assert made.returncode == 0, made.stderr
    assert "runledger run summarise_page -i text=hello --wait" in made.stdout
    tested = call("pytest", "-q", "-p", "no:cacheprovider", "tests/domain/test_summarise_page.py", cwd=tree)
    assert tested.returncode == 0 and "2 passed" in tested.stdout, tested.stdout
    written = ["api/app/tasks.py", "api/app/domain/summarise_page.py", "tests/domain/test_summarise_page.py"]
    for judge in (["check"], ["format", "--check"]):
        judged = call("ruff", *judge, *written, cwd=tree)
        assert judged.returncode == 0, judged.stdout


def test_two_can_be_added_and_none_twice(tree: Path) -> None:
    for name in ("zebra", "aardvark"):
        add_action(tree, name)
    assert call("ruff", "check", "api/app/tasks.py", cwd=tree).returncode == 0
    before = (tree / "api/app/tasks.py").read_text()
    with pytest.raises(Failure, match="'zebra' already"):
        add_action(tree, "zebra")
    assert (tree / "api/app/tasks.py").read_text() == before


@pytest.mark.parametrize(
    "name",
    ["Summarise", "summarise-page", "2nd", "", "_x", "class", "a" * 65, "../up", "echo", "bulk_runs", "text", "Run"],
)
def test_a_name_that_cannot_be_or_is_taken_is_refused_and_nothing_is_written(tree: Path, name: str) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    with pytest.raises(Failure) as refused:
        add_action(tree, name)
    assert refused.value.advice
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before
