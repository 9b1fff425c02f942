"""What is measured still works: a benchmark that nobody runs every day breaks unseen."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from sqlalchemy import URL

from app.config import ROOT


@pytest.mark.parametrize(
    ("arguments", "figures"),
    [
        ("drain 30 10 runs", {"rate"}),
        ("drain 30 10 jobs", {"rate"}),
        ("drain 30 10 first", {"rate"}),
        ("latency 10", {"p50", "p99"}),
    ],
)
def test_our_contender_measures(database: URL, arguments: str, figures: set[str]) -> None:
    measured = subprocess.run(
        [sys.executable, "contenders/runledger.py", database.render_as_string(hide_password=False), *arguments.split()],
        cwd=ROOT / "bench",
        env={**os.environ, "PYTHONPATH": str(ROOT / "api")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(measured.stdout.splitlines()[-1])
    assert set(found) == figures
    assert all(value > 0 for value in found.values())
