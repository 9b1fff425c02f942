"""`runledger doctor`: is everything as it should be here, and if not, what to do."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.screen import show_json, show_table

if TYPE_CHECKING:
    from app.cli.checks import Finding


def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Check this machine's set-up; exit code 1 if something fails."""
    from app.cli.checks import examine

    findings = asyncio.run(examine())
    if as_json:
        show_json([dataclasses.asdict(finding) for finding in findings])
    else:
        show_table(["", "CHECK", "FOUND", "WHAT TO DO"], [_row(finding) for finding in findings])
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


def _row(finding: Finding) -> list[str]:
    return [finding.level, finding.check, finding.found, finding.advice or ""]
