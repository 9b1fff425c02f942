"""Cursors of pages of runs: where a page begins, and which way it goes, in eight bytes."""

from __future__ import annotations

import base64
import binascii

from app.errors import InvalidCursor

_UP = 1 << 63


def downwards(before: int) -> str:
    """The cursor of a page of older runs: those before this job's."""
    return _encode(before)


def upwards(onwards: int) -> str:
    """The cursor of a page of newer runs: this job's and those after it."""
    return _encode(onwards | _UP)


def read(cursor: str) -> tuple[int | None, int | None]:
    """What was encoded: `before` or `onwards`, one of them.

    Raises:
        InvalidCursor: the cursor is not one of ours.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        raw = b""
    place = int.from_bytes(raw, "big")
    if len(raw) != 8 or _encode(place) != cursor:
        raise InvalidCursor(detail="The cursor did not come from this API.")
    return (None, place ^ _UP) if place & _UP else (place, None)


def _encode(place: int) -> str:
    return base64.urlsafe_b64encode(place.to_bytes(8, "big")).decode().rstrip("=")
