"""The scripts that prove what is promised, on systems that they start themselves."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from app.config import ROOT


@pytest.mark.parametrize("script", ["verify_scraper.py", "verify_persistence.py"])
async def test_what_is_promised_is_proved(script: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, f"scripts/{script}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok    ") >= 5
    assert "FAILED" not in done.stdout
