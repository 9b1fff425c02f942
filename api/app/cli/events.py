"""How the events of a run read as lines."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runledger_client import Event


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
    if data.get("waits_for"):
        words.append(f"— waits for {_awaited(data['waits_for'])}")
    if data.get("error"):
        words.append(f"— {reason(data['error'])}")
    return " ".join(words)


def _awaited(what: dict[str, Any]) -> str:
    if "signal" not in what:
        return "a child" if what["children"] == 1 else f"{what['children']} children"
    until = f" until {datetime.fromisoformat(what['until']).astimezone():%Y-%m-%d %H:%M:%S}" if "until" in what else ""
    return f"the signal {what['signal']}{until}"


def _progress(data: dict[str, Any]) -> str:
    done, total, message = data["done"], data["total"], data["message"]
    share = f"{done:g}" if total is None else f"{done:g} of {total:g}"
    return f"{share} — {message}" if message else share
