"""The watchdog: a blocked event loop is told of, and ends its process."""

from __future__ import annotations

import subprocess
import sys

from app.config import ROOT
from app.engine.watchdog import EXIT_CODE

BLOCKED = """
import asyncio, time
from app.engine.watchdog import Watchdog

async def main():
    Watchdog({limit}).start(asyncio.get_running_loop())
    await asyncio.sleep(0)
    time.sleep({blocked})

asyncio.run(main())
print("went on")
"""


def run_blocked(*, limit: float, blocked: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED.format(limit=limit, blocked=blocked)],
        cwd=ROOT / "api", capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def test_a_loop_that_stays_blocked_ends_the_process_and_tells_which_code_it_was() -> None:
    ended = run_blocked(limit=3, blocked=40)
    assert ended.returncode == EXIT_CODE
    assert "time.sleep" in ended.stderr or "in main" in ended.stderr
    assert "this process ends" in ended.stderr


def test_a_loop_that_is_blocked_for_a_moment_goes_on() -> None:
    ended = run_blocked(limit=20, blocked=0.5)
    assert (ended.returncode, ended.stdout) == (0, "went on\n")
