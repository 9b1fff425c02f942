"""How much an item is worth for its cost, in two ways. Pure."""

from __future__ import annotations

from app.domain.backlog.items import BacklogItem

DIGITS = 2
"""After the point: more are not meant by estimates."""


def rice(item: BacklogItem) -> float | None:
    """Reach by impact by confidence, divided by effort; `None` if one of them is not known."""
    match item:
        case BacklogItem(reach=float(reach), impact=float(impact), confidence=float(part), effort=float(effort)):
            return round(reach * impact * part / effort, DIGITS)
        case _:
            return None


def wsjf(item: BacklogItem) -> float | None:
    """Weighted shortest job first: value, time criticality and risk reduction by job size; `None` if one is missing."""
    match item:
        case BacklogItem(
            value=float(value), time_criticality=float(urgency), risk_reduction=float(risk), job_size=float(size)
        ):
            return round((value + urgency + risk) / size, DIGITS)
        case _:
            return None
