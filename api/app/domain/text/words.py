"""Count the words of a text, in one go or part by part.

A word is a run of letters and digits in any script, with its combining marks, underscores and inner apostrophes.
Words are counted without regard to case.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from pydantic import BaseModel

MOST_COMMON = 20


class WordFrequency(BaseModel):
    """A word, case-folded, and how often it occurs."""

    word: str
    count: int


class WordCount(BaseModel):
    """How many words a text has, how many different ones, and the 20 most common, ties in alphabetical order."""

    total: int
    distinct: int
    most_common: list[WordFrequency]


def split_in_parts(text: str, parts: int) -> list[str]:
    """Cut `text` before words, so that each part has about as many words as the others.

    The parts joined are the text. There are `parts` of them, or as many as the text has words if that is less;
    a text without words is one part.
    """
    starts = [word.start() for word in _word().finditer(text)]
    count = max(1, min(parts, len(starts)))
    cuts = [0, *(starts[len(starts) * part // count] for part in range(1, count)), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(cuts)]


def count(text: str) -> dict[str, int]:
    """How often each word occurs, case-folded and in Unicode's composed form (NFC)."""
    return dict(Counter(unicodedata.normalize("NFC", word.casefold()) for word in _word().findall(text)))


def merge(counts: Iterable[Mapping[str, int]]) -> WordCount:
    """The counts of all parts as one."""
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    most_common = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:MOST_COMMON]
    return WordCount(
        total=total.total(),
        distinct=len(total),
        most_common=[WordFrequency(word=word, count=count) for word, count in most_common],
    )


@functools.cache
def _word() -> re.Pattern[str]:
    # `\w` leaves combining marks out, and would cut every word of Hindi and every accent that is not composed.
    marks = "".join(char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char)[0] == "M")
    return re.compile(rf"[^\W_][\w{marks}]*(?:['\u2019][\w{marks}]+)*")
