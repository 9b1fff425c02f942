"""What PostgreSQL can store as JSON. A value it cannot store would break the transaction that it is part of."""

from __future__ import annotations

import math
from typing import Any

from app.errors import Fault, InvalidInput

DEEPEST = 32


def check_storable(value: Any, pointer: str) -> None:
    """Refuse what the database would.

    Raises:
        InvalidInput: NUL or half a surrogate pair in text, a number that is not finite, or nesting too deep.
    """
    fault = _fault(value, pointer, DEEPEST)
    if fault:
        raise InvalidInput(errors=[fault])


def storable_text(text: str) -> str:
    """The text without what the database cannot store."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _fault(value: Any, pointer: str, depth: int) -> Fault | None:
    match value:
        case _ if depth == 0:
            return Fault(pointer=pointer, detail=f"Nested deeper than {DEEPEST} levels.", type="too_deep")
        case str() if not _is_text(value):
            return Fault(pointer=pointer, detail="Text may not contain NUL or lone surrogates.", type="unstorable_text")
        case float() if not math.isfinite(value):
            return Fault(pointer=pointer, detail="Numbers must be finite.", type="finite_number")
        case int() if abs(value) >= 2**63:
            return Fault(pointer=pointer, detail="Whole numbers must fit in 64 bits.", type="int_too_large")
        case dict():
            keyed = (_fault(key, f"{pointer}/{escape(key)}", depth) for key in value)
            valued = (_fault(item, f"{pointer}/{escape(key)}", depth - 1) for key, item in value.items())
            return next((fault for faults in (keyed, valued) for fault in faults if fault), None)
        case list():
            return next((f for i, item in enumerate(value) if (f := _fault(item, f"{pointer}/{i}", depth - 1))), None)
        case _:
            return None


def escape(key: str) -> str:
    """A key as a reference token of a JSON pointer (RFC 6901), in text that can be sent."""
    return storable_text(key).replace("~", "~0").replace("/", "~1")


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\x00" not in value
