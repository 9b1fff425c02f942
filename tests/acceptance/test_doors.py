"""What the documents say, against real processes: their curl calls, verbatim, as they stand in doors.sh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.processes import api_process, worker_process

from app.config import ROOT, Settings


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "processes.log"


@pytest.fixture
async def base(settings: Settings, log: Path) -> AsyncIterator[str]:
    """Where the API of a running system is, under the name that the documents use."""
    async with api_process(settings, log) as (url, _):
        with worker_process(settings, log):
            yield url.replace("127.0.0.1", "localhost")


async def test_every_curl_call_of_the_documents_is_answered_as_they_say(base: str) -> None:
    code, said = await doors(BASE=base)
    assert (code, said[-1]) == (0, "Every call was answered as documented."), "\n".join(said)
    assert [line.split(":")[0] for line in said if line.startswith("== ")] == ["== s0", "== s1", "== s2", "== s3"]
    assert [line for line in said if line.startswith("curl ")]


async def test_an_answer_that_is_not_as_documented_is_shown_and_ends_the_script(settings: Settings, log: Path) -> None:
    async with api_process(settings, log, ROADMAP_AI_SECRET="another-secret-than-theirs") as (url, _):
        code, said = await doors("s0", "s1", BASE=url)
    assert code == 1
    assert "Not as documented: expected 202" in said
    assert "== s1: async worker" not in said


async def test_a_run_that_does_not_end_and_an_api_that_is_not_there_end_the_script(
    settings: Settings, log: Path
) -> None:
    async with api_process(settings, log) as (url, _):
        code, said = await doors("s1", BASE=url, PATIENCE="0")
    assert (code, [line for line in said if "after 0 s" in line]) == (1, said[-3:-2])
    code, said = await doors("s1", BASE=url)
    assert (code, "Not as documented: the call failed" in said) == (1, True)


async def doors(*names: str, **environment: str) -> tuple[int, list[str]]:
    """Run the script; its exit code, and the lines it wrote."""
    process = await asyncio.create_subprocess_exec(
        ROOT / "tests/acceptance/doors.sh",
        *names,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode().rstrip().splitlines()
