"""What DeepL can translate, by ISO 639-1. It is asked while somebody waits, so DeepL itself is not."""

from __future__ import annotations

_KNOWN = "ar bg cs da de el en es et fi fr he hu id it ja ko lt lv nb nl pl pt ro ru sk sl sv th tr uk vi zh"
LANGUAGES = frozenset(_KNOWN.split())
_WRITTEN_AS = {"en": "EN-US", "pt": "PT-PT"}
"""Into these, DeepL translates in one of their spellings only."""


def supports(source: str, target: str) -> bool:
    """Whether a text in `source` can be translated into `target`."""
    return source != target and {source, target} <= LANGUAGES


def target_code(language: str) -> str:
    """What DeepL calls a language that it translates into."""
    return _WRITTEN_AS.get(language, language.upper())
