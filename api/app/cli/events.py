"""The events of a run, and how they read as lines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Event:
    """One server-sent event.

    `type` is state, progress, log, step or end; the data of `end` is the run, that of the others has `at` (ISO 8601).
    """

    id: str
    type: str
    data: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The event as one JSON object."""
        return {"id": self.id, "type": self.type, "data": self.data}


def line(event: Event) -> str:
    """The event in words, without its time."""
    match event.type:
        case "state":
            return _state(event.data)
        case "progress":
            return _progress(event.data)
        case "log":
            return f"{event.data['level']}: {event.data['message']}"
        case "step":
            return f"finished step {event.data['name']}"
        case _:
            return event.type


def clock(event: Event) -> str:
    """When it happened, by this machine's clock."""
    return datetime.fromisoformat(event.data["at"]).astimezone().strftime("%H:%M:%S")


def reason(error: dict[str, Any] | None) -> str:
    """A problem object in a line."""
    error = error or {}
    return ": ".join(part for part in (error.get("title"), error.get("detail")) if part) or "no reason given"


def _state(data: dict[str, Any]) -> str:
    words = [data["state"]]
    if data.get("attempt"):
        words.append(f"(attempt {data['attempt']})")
    if data.get("cancel_requested"):
        words.append("— asked to stop")
    if data.get("error"):
        words.append(f"— {reason(data['error'])}")
    return " ".join(words)


def _progress(data: dict[str, Any]) -> str:
    done, total, message = data["done"], data["total"], data["message"]
    share = f"{done:g}" if total is None else f"{done:g} of {total:g}"
    return f"{share} — {message}" if message else share
