"""What is accepted can be stored, and what is refused PostgreSQL would refuse."""

from __future__ import annotations

import json
from typing import Any

import jiter
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import InvalidInput
from app.runs.values import DEEPEST, _fault, _is_plainly_storable, check_storable, has_more_than

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=15,
)


@given(ANY_JSON, st.integers(0, DEEPEST + 2))
@example("x", DEEPEST)
@example([], DEEPEST)
@example({"a": -(2**63)}, 0)
@example(2**63, 0)
def test_the_quick_look_agrees_with_the_one_that_says_where(value: Any, wrapped: int) -> None:
    for _ in range(wrapped):
        value = [value]
    assert _is_plainly_storable(value) == (_fault(value, DEEPEST) is None)


@given(ANY_JSON)
def test_every_value_and_every_key_is_counted(value: Any) -> None:
    def count(value: Any) -> int:
        if isinstance(value, dict):
            return 1 + sum(1 + count(item) for item in value.values())
        return 1 + sum(map(count, value)) if isinstance(value, list) else 1

    assert not has_more_than(count(value), value)
    assert has_more_than(count(value) - 1, value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(values=st.lists(ANY_JSON, min_size=20, max_size=20))
def test_what_is_accepted_is_json_without_nul(values: list[Any]) -> None:
    accepted = [value for value in values if _is_plainly_storable(value)]
    for value in accepted:
        # Text that can be sent, numbers that JSON has, and no NUL, which is what jsonb refuses.
        assert jiter.from_json(json.dumps(value, allow_nan=False).encode(), allow_inf_nan=False) == value
        assert "\\u0000" not in json.dumps(value).replace("\\\\", "")


@pytest.mark.parametrize("value", ["\x00", "\ud800", {"\x00": 1}, {"\udc00": 1}, float("inf"), float("nan")])
async def test_what_is_refused_postgresql_would_refuse(engine: AsyncEngine, value: Any) -> None:
    with pytest.raises(InvalidInput):
        check_storable(value, "")
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT CAST(:value AS jsonb)"), {"value": json.dumps(value)})
