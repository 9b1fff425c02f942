"""Counting words, whole and in parts."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.text.words import count, merge, split_in_parts

WORDY = st.text(st.sampled_from("abÄß1_ '’-.\n日\u0301\u093f\u0939")) | st.text()
PARTS = st.integers(min_value=1, max_value=12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("To be, or not to be.", {"to": 2, "be": 2, "or": 1, "not": 1}),
        ("Straße STRASSE", {"strasse": 2}),
        ("don't don’t 'quoted'", {"don't": 1, "don’t": 1, "quoted": 1}),
        ("caf\u00e9 cafe\u0301", {"café": 2}),
        ("हिन्दी हिन्दी", {"हिन्दी": 2}),
        ("well-known e.g. 42nd snake_case", {"well": 1, "known": 1, "e": 1, "g": 1, "42nd": 1, "snake_case": 1}),
        ("… — !? _ ’", {}),
        ("", {}),
    ],
)
def test_words_are_counted_without_regard_to_case_and_script(text: str, words: dict[str, int]) -> None:
    assert count(text) == words


@settings(deadline=None)
@given(text=WORDY, parts=PARTS)
def test_the_parts_joined_are_the_text(text: str, parts: int) -> None:
    assert "".join(split_in_parts(text, parts)) == text


@settings(deadline=None)
@given(text=WORDY, parts=PARTS)
def test_there_are_as_many_parts_as_asked_for_or_as_there_are_words(text: str, parts: int) -> None:
    assert len(split_in_parts(text, parts)) == max(1, min(parts, sum(count(text).values())))


@settings(deadline=None)
@given(text=WORDY, parts=PARTS)
def test_no_part_has_two_words_more_than_another(text: str, parts: int) -> None:
    sizes = [sum(count(part).values()) for part in split_in_parts(text, parts)]
    assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(text=WORDY, parts=PARTS)
def test_counting_the_parts_is_counting_the_whole(text: str, parts: int) -> None:
    assert merge(count(part) for part in split_in_parts(text, parts)) == merge([count(text)])


@settings(deadline=None)
@given(counts=st.dictionaries(st.text(min_size=1), st.integers(min_value=1, max_value=9)))
def test_the_most_common_words_are_twenty_and_ties_are_alphabetical(counts: dict[str, int]) -> None:
    whole = merge([counts])
    assert (whole.total, whole.distinct) == (sum(counts.values()), len(counts))
    ranks = [(-word.count, word.word) for word in whole.most_common]
    assert ranks == sorted((-number, word) for word, number in counts.items())[:20]


@settings(deadline=None)
@given(text=st.text(st.characters()) | st.text(st.sampled_from("a\x00\ud800\udfff ")))
def test_counts_can_be_stored_whatever_the_text(text: str) -> None:
    stored = json.dumps(count(text), ensure_ascii=False).encode()
    assert b"\\u0000" not in stored
    assert Counter(json.loads(stored)) == count(text)
