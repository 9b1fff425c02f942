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
    fault = _fault(value, DEEPEST)
    if fault:
        raise InvalidInput(errors=[_below(pointer, fault)])


def storable_text(text: str) -> str:
    """The text without what the database cannot store."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _fault(value: Any, depth: int) -> Fault | None:
    match value:
        case _ if depth == 0:
            return Fault(pointer="", detail=f"Nested deeper than {DEEPEST} levels.", type="too_deep")
        case str() if not _is_text(value):
            return Fault(pointer="", detail="Text may not contain NUL or lone surrogates.", type="unstorable_text")
        case float() if not math.isfinite(value):
            return Fault(pointer="", detail="Numbers must be finite.", type="finite_number")
        case int() if abs(value) >= 2**63:
            return Fault(pointer="", detail="Whole numbers must fit in 64 bits.", type="int_too_large")
        case dict():
            for key, item in value.items():
                if fault := _fault(key, depth):
                    return fault
                if fault := _fault(item, depth - 1):
                    return _below(f"/{escape(key)}", fault)
        case list():
            for index, item in enumerate(value):
                if fault := _fault(item, depth - 1):
                    return _below(f"/{index}", fault)
        case _:
            pass
    return None


def _below(pointer: str, fault: Fault) -> Fault:
    return fault.model_copy(update={"pointer": pointer + fault.pointer})


def escape(key: str) -> str:
    """A key as a reference token of a JSON pointer (RFC 6901), in text that can be sent."""
    return storable_text(key).replace("~", "~0").replace("/", "~1")


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\x00" not in value
