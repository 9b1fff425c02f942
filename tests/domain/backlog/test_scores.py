"""RICE and WSJF."""

from __future__ import annotations

import pytest

from app.domain.backlog.items import BacklogItem
from app.domain.backlog.scores import rice, wsjf

KNOWN = {
    "reach": 1000, "impact": 2, "confidence": 0.8, "effort": 3,
    "value": 8, "time_criticality": 5, "risk_reduction": 1, "job_size": 3,
}  # fmt: skip


def item(**changes: float | None) -> BacklogItem:
    return BacklogItem.model_validate({"key": "A-1", "title": "Undo", **KNOWN, **changes})


def test_scores_are_what_their_names_say() -> None:
    assert rice(item()) == 533.33
    assert wsjf(item()) == 4.67
    assert rice(item(reach=0)) == 0


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_not_known_leaves_its_score_unknown_and_the_other_alone(name: str) -> None:
    scores = rice(item(**{name: None})), wsjf(item(**{name: None}))
    is_rice = name in ("reach", "impact", "confidence", "effort")
    assert scores == ((None, 4.67) if is_rice else (533.33, None))
