"""What actions did, on a file: the database is what is broken here, so it cannot be the witness."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.runs.context import Run


@dataclass(frozen=True)
class Execution:
    """One time that an action was begun: from when to when, in seconds since 1970 by this machine's clock.

    `end` is `None` if it did not get there.
    """

    run: str
    attempt: int
    pid: int
    lock: str | None
    begin: float
    end: float | None


class Effects:
    """An append-only file. Lines of many processes do not mix: each is one write."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def of(self, run: Run, lock: str | None = None) -> Generator[None]:
        """Note that an execution begins, and, unless its process dies before, that it ends."""
        about = {"run": run.id, "attempt": run.attempt, "pid": os.getpid(), "lock": lock, "key": time.monotonic_ns()}
        self._append({**about, "mark": "begin", "at": time.monotonic()})
        try:
            yield
        finally:
            self._append({**about, "mark": "end", "at": time.monotonic()})

    def executions(self) -> list[Execution]:
        """In the order in which they began."""
        # Processes note the time that has passed since the machine started: whatever the clock says that they see.
        started = time.time() - time.monotonic()
        lines = [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []
        ends = {(line["run"], line["key"]): started + line["at"] for line in lines if line["mark"] == "end"}
        return [
            Execution(
                line["run"],
                line["attempt"],
                line["pid"],
                line["lock"],
                started + line["at"],
                ends.get((line["run"], line["key"])),
            )
            for line in lines
            if line["mark"] == "begin"
        ]

    def of_run(self, run_id: str) -> list[Execution]:
        return [execution for execution in self.executions() if execution.run == run_id]

    def _append(self, line: dict[str, Any]) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)
