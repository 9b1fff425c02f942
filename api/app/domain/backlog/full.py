"""From the sheet and back: three actions, each a run of its own."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from app.domain.journal import Journal, Policy

STAGES = ("sync_backlog", "recompute_scores", "write_scores")


class Stage(BaseModel):
    """How one of the three has ended."""

    action: str
    run_id: str
    state: str
    result: Any


async def sync_fully(run: Journal, policy: Policy) -> list[Stage]:
    """Sync, score and write, each when the one before has ended. No worker waits meanwhile.

    Raises:
        ChildFailed: by "cancel", one has failed; those after it are not begun.
    """
    stages: list[Stage] = []
    for number, action in enumerate(STAGES, start=1):
        child = await run.spawn(action, key=action)
        [outcome] = await run.gather([child], policy=policy)
        stages.append(Stage(action=action, run_id=child, state=outcome.state, result=outcome.result))
        # A step: the run begins from the top after each child, and its progress must not go back.
        await run.step(f"told-{action}", run.progress, number, len(STAGES), f"{action} has ended: {outcome.state}")
    return stages
