"""What PostgreSQL can store as JSON. A value it cannot store would break the transaction that it is part of."""

from __future__ import annotations

import math
from typing import Any

from app.errors import Fault, InvalidInput

DEEPEST = 32
LEAST, GREATEST = -(2**63), 2**63 - 1


def check_storable(value: Any, pointer: str) -> None:
    """Refuse what the database would.

    Raises:
        InvalidInput: NUL or half a surrogate pair in text, a number that is not finite or does not fit in 64 bits, or
            nesting too deep. It names the first fault.
    """
    # Nearly all values have none, and every request is checked: where it is, is only asked when there is one.
    if not _is_plainly_storable(value) and (fault := _fault(value, DEEPEST)):
        raise InvalidInput(errors=[_below(pointer, fault)])


def has_more_than(most: int, value: Any) -> bool:
    """Whether there are more values in it than that, itself and the keys of objects among them."""
    level: list[Any] = [value]
    while level and (most := most - len(level)) >= 0:
        below: list[Any] = []
        for each in level:
            if type(each) is dict:
                below += each
                below += each.values()
            elif type(each) is list:
                below += each
        level = below
    return most < 0


def storable_text(text: str) -> str:
    """The text without what the database cannot store."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _is_plainly_storable(value: Any) -> bool:
    """Whether `_fault` would find nothing, without saying what; level by level, since a call for each value costs more.

    `False` may also mean that a value is of an unusual type.
    """
    level: list[Any] = [value]
    for depth in range(DEEPEST + 1):
        below: list[Any] = []
        for each in level:
            kind = type(each)
            if kind is str:
                if "\x00" in each or not (each.isascii() or _can_be_sent(each)):
                    return False
            elif kind is dict:
                below += each
                below += each.values()
                if depth == DEEPEST:
                    return False
            elif kind is list:
                below += each
                if depth == DEEPEST:
                    return False
            elif kind is int:
                if not LEAST <= each <= GREATEST:
                    return False
            elif kind is float:
                if not math.isfinite(each):
                    return False
            elif not (each is None or kind is bool):
                return False
        if not below:
            return True
        level = below
    return False


def _fault(value: Any, depth: int) -> Fault | None:
    match value:
        case dict() | list() if depth == 0:
            return Fault(pointer="", detail=f"Nested deeper than {DEEPEST} levels.", type="too_deep")
        case str() if not _is_text(value):
            return Fault(pointer="", detail="Text may not contain NUL or lone surrogates.", type="unstorable_text")
        case float() if not math.isfinite(value):
            return Fault(pointer="", detail="Numbers must be finite.", type="finite_number")
        case int() if not LEAST <= value <= GREATEST:
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
    return "\x00" not in value and _can_be_sent(value)


def _can_be_sent(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
