"""Words, where they stand and what they are forms of, without the network."""

from __future__ import annotations

import pytest

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
    ("language", "text", "lemma"), [("es", "corriendo", "correr"), ("de", "Häuser", "Haus"), ("en", "foxes", "fox")]
)
async def test_words_know_what_they_are_forms_of(language: str, text: str, lemma: str) -> None:
    (word,) = await SpacyClient().analyse(text, language)
    assert word.lemma == lemma


async def test_a_language_without_a_dictionary_is_rejected() -> None:
    with pytest.raises(Rejected, match="cannot be told apart"):
        await SpacyClient().analyse("nuqneH", "tlh")


async def test_every_language_can_be_analysed_and_translated() -> None:
    assert LANGUAGES <= TRANSLATED
    for language in LANGUAGES - {"fr", "id"}:  # whose tokenizers take seconds to make
        assert await SpacyClient().analyse("a", language) is not None
