"""The actions of the backlog, in the real app over a test's database, with a file in the sheet's place."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.workshop import Workshop

from app import tasks
from app.config import Settings
from app.engine.connector import SQLAlchemyAsyncConnector
from app.runs.intake import Intake
from app.runs.schemas import RunRead

HEADER = ["Key", "Title", "Reach", "Impact", "Confidence", "Effort", "Value", "Time criticality", "Risk reduction",
          "Job size"]  # fmt: skip
UNDO = ["A-1", "Undo", "1000", "2", "0.8", "3", "8", "5", "1", "3"]
REDO = ["A-2", "Redo", "100", "1", "50%", "1"]


class File:
    """A sheet, as who edits it by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def says(self, *rows: Sequence[str]) -> None:
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])

    @property
    def rows(self) -> list[list[str]]:
        with self.path.open(newline="") as file:
            return list(csv.reader(file))


@pytest.fixture
def sheet(tmp_path: Path) -> File:
    return File(tmp_path / "backlog.csv")


@pytest.fixture
async def real(
    engine: AsyncEngine, settings: Settings, sheet: File, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Workshop]:
    connector = SQLAlchemyAsyncConnector(engine, timeout=settings.db_timeout_seconds)
    intake = Intake(engine, timeout=settings.db_timeout_seconds)
    monkeypatch.setattr(tasks, "settings", settings.model_copy(update={"backlog_sheet": str(sheet.path)}))
    with tasks.procrastinate_app.replace_connector(connector):
        yield Workshop(settings, engine, tasks.procrastinate_app, tasks.action, intake)
    await intake.aclose()


async def performed(workshop: Workshop, action: str, **params: object) -> RunRead:
    run = await workshop.submit(action, **params)
    await workshop.drain_all()
    return await workshop.get(run)


async def result(workshop: Workshop, action: str, **params: object) -> Any:
    run = await performed(workshop, action, **params)
    assert run.state == "succeeded", run.error
    return run.result


async def kept(workshop: Workshop) -> list[tuple[str, str]]:
    return [(row["key"], row["title"]) for row in await workshop.fetch("SELECT * FROM backlog_items ORDER BY key")]


async def test_sync_backlog_reports_what_was_added_changed_removed_and_is_wrong(real: Workshop, sheet: File) -> None:
    sheet.says(UNDO, REDO, ["A-3", "Gone"], ["A-4", "Stays"])
    first = await result(real, "sync_backlog")
    assert first == {
        "items": 4, "added": 4, "changed": 0, "unchanged": 0, "removed": 0, "invalid": 0, "invalid_rows": [],
    }  # fmt: skip
    sheet.says(UNDO, ["A-2", "Redo it"], ["A-4", "Wrong now", "many"], ["A-5", "New"])
    second = await result(real, "sync_backlog")
    assert second["invalid_rows"] == [
        {"row": 4, "column": "reach",
         "problem": "Give it a number from 0 to 1000000000, or leave it empty, not 'many'."},
    ]  # fmt: skip
    assert {name: second[name] for name in ("added", "changed", "unchanged", "removed", "invalid")} == {
        "added": 1, "changed": 1, "unchanged": 1, "removed": 1, "invalid": 1,
    }  # fmt: skip
    assert await kept(real) == [("A-1", "Undo"), ("A-2", "Redo it"), ("A-4", "Stays"), ("A-5", "New")]


async def test_a_sheet_that_is_no_backlog_changes_nothing(real: Workshop, sheet: File) -> None:
    sheet.says(UNDO)
    await result(real, "sync_backlog")
    sheet.path.write_text("Something,else\n1,2\n")
    run = await performed(real, "sync_backlog")
    assert (run.state, run.attempt) == ("failed", 1)
    assert "no column 'key'" in str(run.error)
    assert await kept(real) == [("A-1", "Undo")]


async def test_scores_are_computed_once_and_again_where_the_sheet_has_changed(real: Workshop, sheet: File) -> None:
    sheet.says(UNDO, REDO, ["A-3", "Unknown"])
    await result(real, "sync_backlog")
    report = await result(real, "recompute_scores")
    assert (report["scored"], report["changed"]) == (3, 2)
    assert [(best["key"], best["rice"], best["wsjf"]) for best in report["best"]] == [
        ("A-1", 533.33, 4.67), ("A-2", 50, None),
    ]  # fmt: skip
    assert (await result(real, "recompute_scores"))["changed"] == 0
    sheet.says(UNDO, [*REDO[:2], "200", *REDO[3:]], ["A-3", "Unknown"])
    await result(real, "sync_backlog")
    assert (await result(real, "recompute_scores"))["changed"] == 1


async def test_scores_are_written_beside_their_items_and_only_where_the_sheet_says_something_else(
    real: Workshop, sheet: File
) -> None:
    sheet.says(UNDO, REDO, ["A-3", "Unknown"])
    await result(real, "sync_backlog")
    await result(real, "recompute_scores")
    # The rows have moved since, and one is new.
    sheet.says(["A-9", "New"], REDO, UNDO, ["A-3", "Unknown"])
    assert await result(real, "write_scores") == {"rows": 4, "cells_written": 5}
    assert [row[10:] for row in sheet.rows] == [["RICE", "WSJF"], [], ["50.0"], ["533.33", "4.67"], []]
    assert await result(real, "write_scores") == {"rows": 4, "cells_written": 0}


async def test_a_score_that_is_not_known_any_more_is_wiped(real: Workshop, sheet: File) -> None:
    sheet.says(UNDO)
    for action in ("sync_backlog", "recompute_scores", "write_scores"):
        await result(real, action)
    scored = sheet.rows
    scored[1][2] = ""
    sheet.path.write_text("\n".join(",".join(row) for row in scored))
    for action in ("sync_backlog", "recompute_scores", "write_scores"):
        await result(real, action)
    assert sheet.rows[1][10:] == ["", "4.67"]


async def test_enrich_items_classifies_twenty_at_a_time_what_has_no_category(real: Workshop, sheet: File) -> None:
    items = [[f"A-{number}", f"Item {number}"] for number in range(45)]
    sheet.says(*items)
    await result(real, "sync_backlog")
    run = await performed(real, "enrich_items")
    assert (run.state, run.result["classified"]) == ("succeeded", 45), run.error
    steps = [event["data"]["name"] for event in await real.events(run, "step")]
    assert steps == ["classify-1", "classify-2", "classify-3", "classify-4"]
    assert sum(run.result["categories"].values()) == 45
    assert (await result(real, "enrich_items"))["classified"] == 0
    sheet.says(["A-0", "Something else"], *items[1:])
    await result(real, "sync_backlog")
    assert (await result(real, "enrich_items"))["classified"] == 1


async def test_a_service_with_a_bad_moment_is_asked_again_for_that_chunk_alone(real: Workshop, sheet: File) -> None:
    items = [[f"A-{number:02}", f"Item {number}"] for number in range(40)]
    items[25][1] = "Item [stub:anthropic:500 x2]"
    sheet.says(*items)
    await result(real, "sync_backlog")
    # One worker for all attempts: its stubs count how often they have failed.
    async with real.working():
        run = await real.reaches(await real.submit("enrich_items"), "succeeded")
    assert (run.attempt, run.result["classified"]) == (3, 40)


async def test_full_sync_is_three_runs_with_one_progress(real: Workshop, sheet: File) -> None:
    sheet.says(UNDO, REDO)
    run = await performed(real, "full_sync")
    assert (run.state, run.attempt) == ("succeeded", 1), run.error
    assert [(stage["action"], stage["state"]) for stage in run.result] == [
        ("sync_backlog", "succeeded"), ("recompute_scores", "succeeded"), ("write_scores", "succeeded"),
    ]  # fmt: skip
    children = await real.fetch("SELECT id FROM action_runs WHERE parent_id = :id ORDER BY job_id", id=run.id)
    assert [child["id"] for child in children] == [stage["run_id"] for stage in run.result]
    told = [event["data"]["done"] for event in await real.events(run, "progress")]
    assert told == sorted(told)
    assert run.progress is not None
    assert run.progress.percent == 100
    assert sheet.rows[1][10:] == ["533.33", "4.67"]


@pytest.mark.parametrize(
    ("policy", "state", "stages"),
    [("cancel", "failed", ["failed"]), ("continue", "succeeded", ["failed", "succeeded", "failed"])],
)
async def test_full_sync_stops_at_a_failure_or_goes_on_as_it_is_told(
    real: Workshop, policy: str, state: str, stages: list[str]
) -> None:
    """Its sheet is not there."""
    run = await performed(real, "full_sync", policy=policy)
    assert run.state == state
    children = await real.fetch("SELECT state FROM action_runs WHERE parent_id = :id ORDER BY job_id", id=run.id)
    assert [child["state"] for child in children] == stages
