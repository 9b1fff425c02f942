"""`runledger new-action`."""

from __future__ import annotations

import ast
import keyword
import re
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from app.cli.failure import Failure

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

_DOMAIN = '''"""$words: what the action does, without HTTP servers, SQL or a queue in sight."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.domain.journal import Journal


class ${Words}Input(BaseModel):
    """What it is asked."""

    text: str = Field(max_length=10_000, examples=["hello"])


class ${Words}Result(BaseModel):
    """What came of it."""

    length: int


async def perform(run: Journal, asked: ${Words}Input) -> ${Words}Result:
    """Do what is asked: everything that costs, or lasts, as a step."""
    length = await run.step("measure", measure, asked.text)
    await run.progress(1, 1, "measured")
    return ${Words}Result(length=length)


async def measure(text: str) -> int:
    """Do what a retry must not do again."""
    return len(text)
'''

_IMPORTS = """from app.domain.$name import ${Words}Input, ${Words}Result
from app.domain.$name import perform as perform_$name
"""

_ACTION = '''

@action()
async def $name(run: Run, asked: ${Words}Input) -> ${Words}Result:
    """$words."""
    return await perform_$name(run, asked)
'''

_TEST = '''"""$words."""

from __future__ import annotations

from app.tasks import action
from app.testing import perform


async def test_it_measures_the_text_in_a_step() -> None:
    done = await perform(action["$name"], {"text": "hello"})
    assert done.result == {"length": 5}
    assert done.steps == {"measure": 5}
    assert done.progress == [(1, 1, "measured")]


async def test_a_retry_goes_on_after_the_finished_step() -> None:
    first = await perform(action["$name"], {"text": "hello"})
    again = await perform(action["$name"], {"text": "no longer looked at"}, after=first)
    assert again.result == {"length": 5}
'''

_NEXT = """Written:
  api/app/domain/$name.py       what it does, with its input and its result
  api/app/tasks.py              the action, at the end
  tests/domain/test_$name.py    its test, which passes

Next:
  make test ARGS="-k $name"
  make openapi                              docs/reference/actions.md
  runledger run $name -i text=hello --wait  with `make up` restarted
"""


def new_action(
    name: Annotated[str, typer.Argument(help="As in a function: small letters, digits and _.", show_default=False)],
) -> None:
    """Write a new action: its function, its models, and a test that passes."""
    from app.config import ROOT

    if not (ROOT / "tests").is_dir():
        raise Failure("Here is no code to add to.", "Run it in a checkout of the repository.")
    typer.echo(add_action(ROOT, name), nl=False)


def add_action(root: Path, name: str) -> str:
    """Add an action to the tree: nothing is written if anything is in the way.

    Returns:
        What was written, and what to do next.

    Raises:
        Failure: the name cannot be one, or is taken.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise Failure(
            f"{name!r} cannot be the name of a function.", "Take small letters, digits and _: summarise_page."
        )
    tasks = root / "api/app/tasks.py"
    domain, test = root / f"api/app/domain/{name}.py", root / f"tests/domain/test_{name}.py"
    written = tasks.read_text()
    if name in _names(written) or any(path.exists() for path in (domain, domain.with_suffix(""), test)):
        raise Failure(f"There is something called {name!r} already.", "Take another name, or delete it first.")
    words = {"name": name, "words": name.replace("_", " ").capitalize(), "Words": name.title().replace("_", "")}
    domain.write_text(_filled(_DOMAIN, words))
    test.write_text(_filled(_TEST, words))
    tasks.write_text(_with_imports(written, _filled(_IMPORTS, words)) + _filled(_ACTION, words))
    return _filled(_NEXT, words)


def _filled(template: str, words: dict[str, str]) -> str:
    return Template(template).substitute(words)


def _names(source: str) -> set[str]:
    """What a module has names for, and what its actions are called."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.alias():
                names.add(node.asname or node.name.partition(".")[0])
            case ast.Name():
                names.add(node.id)
            case ast.Constant(value=str() as text):
                names.add(text)
            case _:
                pass
    return names


def _with_imports(source: str, imports: str) -> str:
    """The module with these imports where they belong by the alphabet."""
    lines = source.splitlines(keepends=True)
    module = imports.split()[1]
    place = next(
        number
        for number, line in enumerate(lines)
        if (line.startswith("from app.") and line.split()[1] > module) or line.startswith("settings =")
    )
    return "".join([*lines[:place], imports, *lines[place:]])
