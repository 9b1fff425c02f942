"""`make demo`."""

from __future__ import annotations

import re
import socket
import subprocess
import sys

from tests.cli.conftest import Terminal, settle

from app.config import ROOT


def test_the_demo_shows_three_runs_and_leaves_nothing_even_if_its_port_is_taken(blank: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "demo.py"],
            env=blank.env | {"PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as demo:
            finished = settle(demo)
    assert finished.code == 0, finished.stderr
    assert f"Port {port} is taken: using " in finished.stderr
    results = finished.stdout.splitlines()[-3:]
    assert [re.split(r"  +", line)[1:3] for line in results] == [
        ["succeeded", "1"],
        ["succeeded", "2"],
        ["succeeded", "1"],
    ]
