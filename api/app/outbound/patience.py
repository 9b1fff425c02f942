"""How long a server asks to be left alone: its `Retry-After` (RFC 9110 §10.2.3)."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER = 900.0


def retry_after(header: str, now: float) -> float | None:
    """The seconds that the header asks for, from 0 to 900; `None` if it says nothing that can be read.

    `now` is seconds since 1970.
    """
    try:
        seconds = int(header) if header.isdigit() else parsedate_to_datetime(header).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return float(min(max(seconds, 0), MAX_RETRY_AFTER))
