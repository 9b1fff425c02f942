"""What texts mean, as vectors, by a model that is in its wheel: no network, no key."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wordllama.inference import WordLlamaInference

DIMENSIONS = 256

Vector = list[float]


@dataclass(frozen=True)
class EmbeddedText:
    """A text, where it is from, and what it means."""

    text: str
    source: str | None
    embedding: Vector


class Embeddings:
    """The model of one worker, loaded when it is first needed."""

    def __init__(self) -> None:
        self._model: WordLlamaInference | None = None
        # Two runs at once load it once.
        self._loading = threading.Lock()

    async def embed(self, texts: list[str]) -> list[Vector]:
        """A vector of 256 numbers for each text, none of which may be empty."""
        return await asyncio.to_thread(self._embed, texts)

    def _embed(self, texts: list[str]) -> list[Vector]:
        with self._loading:
            if self._model is None:
                self._model = _load()
        # Not numpy's numbers, which are no JSON.
        return [[float(number) for number in vector] for vector in self._model.embed(texts)] if texts else []


def _load() -> WordLlamaInference:
    # Here, because it takes half a second that most processes need for something else.
    import wordllama

    # Without a folder it looks in a wrong one, and then asks the network.
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
