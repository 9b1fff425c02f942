"""The table of actions in docs/reference/actions.md: `python -m app.catalogue` prints it."""

from __future__ import annotations

import sys
from typing import Any

from app.engine.app import App
from app.runs.actions import Action, Actions
from app.tasks import action, procrastinate_app

_HEAD = """# Actions

What can be submitted, by `POST /runs` or `runledger run`; `GET /actions/{name}` has the schemas.
`make openapi` writes this. A `?` marks what may be left out. An attempt without a timeout takes as long as it takes.

| action | does | input | output | queue | attempts | timeout | cron |
|---|---|---|---|---|---|---|---|
"""


def table(app: App, catalogue: Actions) -> str:
    """Every action of the catalogue, a row each, in the order of their names."""
    return _HEAD + "".join(f"| {' | '.join(_row(app, catalogue[name]))} |\n" for name in sorted(catalogue))


def _row(app: App, known: Action) -> list[str]:
    timeout = app.timeouts.get(known.name)
    crons = [f"`{each.cron}` {each.zone}" for each in app.schedules if each.task_name == known.name]
    return [
        f"`{known.name}`",
        known.description.partition("\n")[0].replace("|", r"\|"),
        _input(known.input.model_json_schema()),
        _output(known.output.json_schema(mode="serialization")),
        f"`{known.task.queue}`",
        str(known.retry.max_attempts),
        f"{timeout:g} s" if timeout else "",
        ", ".join(crons),
    ]


def _input(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    names = [name if name in required else f"{name}?" for name in schema.get("properties", {})]
    if schema.get("additionalProperties") is True:
        names.append("…")
    return ", ".join(f"`{name}`" for name in names)


def _output(schema: dict[str, Any]) -> str:
    word = schema.get("title") or schema.get("type", "any JSON")
    return "" if word == "null" else str(word)


if __name__ == "__main__":
    sys.stdout.write(table(procrastinate_app, action))
