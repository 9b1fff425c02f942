"""The words of a text, with what they are forms of. All of it is on this machine, and nothing is paid.

spaCy finds sentences and words; a pipeline of the language that is installed (`fr_core_news_sm`) says what a word is a
form of, or else simplemma's dictionary does.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from pydantic import BaseModel

from app.errors import Rejected

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Token

_KNOWN = "ar bg cs da de el en es et fi fr he hu id it lt lv nb nl pl pt ro ru sk sl sv tr uk"
LANGUAGES = frozenset(_KNOWN.split())
"""ISO 639-1: those that write spaces between words, and that have a dictionary."""


class Word(BaseModel):
    """A word where it stands."""

    text: str
    lemma: str
    """The form that a dictionary has."""
    start: int
    """Characters before it."""
    sentence: int
    """0 for the first."""


class SpacyClient:
    """Analyses texts, in threads."""

    async def analyse(self, text: str, language: str) -> list[Word]:
        """The words of `text`, in order, without punctuation and numbers.

        Raises:
            Rejected: the language (ISO 639-1) is not among `LANGUAGES`.
        """
        if language not in LANGUAGES:
            raise Rejected(f"Words of {language!r} cannot be told apart. Choose one of {', '.join(sorted(LANGUAGES))}.")
        return await asyncio.to_thread(_analyse, text, language)


def _analyse(text: str, language: str) -> list[Word]:
    return [
        Word(text=token.text, lemma=_lemma(token, language), start=token.idx, sentence=number)
        for number, sentence in enumerate(_pipeline(language)(text).sents)
        for token in sentence
        if token.is_alpha
    ]


def _lemma(token: Token, language: str) -> str:
    # Not at the top, as spaCy below: they take a second to import, and not every worker analyses words.
    import simplemma

    return token.lemma_ or simplemma.lemmatize(token.text, lang=language)


@functools.cache
def _pipeline(language: str) -> Language:
    import spacy

    installed = [name for name in spacy.util.get_installed_models() if name.startswith(f"{language}_core_")]
    if installed:
        return spacy.load(installed[0], exclude=["ner"])
    blank = spacy.blank(language)
    blank.add_pipe("sentencizer")
    return blank
