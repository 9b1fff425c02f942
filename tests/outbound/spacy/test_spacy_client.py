"""Words, where they stand and what they are forms of, without the network."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from simplemma.strategies.dictionaries.dictionary_factory import SUPPORTED_LANGUAGES

from app.errors import Rejected
from app.outbound.deepl.languages import LANGUAGES as TRANSLATED
from app.outbound.spacy.client import LANGUAGES, SpacyClient


async def test_words_say_where_they_stand() -> None:
    text = "The foxes ran. They were happy, 3 times!"
    words = await SpacyClient().analyse(text, "en")
    assert [word.text for word in words] == ["The", "foxes", "ran", "They", "were", "happy", "times"]
    assert [word.sentence for word in words] == [0, 0, 0, 1, 1, 1, 1]
    assert all(text[word.start :].startswith(word.text) for word in words)


@pytest.mark.parametrize(
    ("language", "text", "lemma"),
    [("es", "corriendo", "correr"), ("de", "Häuser", "Haus"), ("en", "foxes", "fox"), ("uk", "книги", "книга")],
)
async def test_words_know_what_they_are_forms_of(language: str, text: str, lemma: str) -> None:
    (word,) = await SpacyClient().analyse(text, language)
    assert word.lemma == lemma


async def test_a_language_without_a_dictionary_is_rejected() -> None:
    with pytest.raises(Rejected, match="cannot be told apart"):
        await SpacyClient().analyse("nuqneH", "tlh")


def test_every_language_has_a_tokenizer_a_dictionary_and_a_translation() -> None:
    assert LANGUAGES <= TRANSLATED
    assert set(SUPPORTED_LANGUAGES) >= LANGUAGES
    # Found, not loaded: together they take most of a minute and half a gigabyte.
    assert all(find_spec(f"spacy.lang.{language}") for language in LANGUAGES)
