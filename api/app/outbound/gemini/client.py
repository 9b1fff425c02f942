"""Gemini, by Google: speech."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
import wave
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
from pydantic import ValidationError

from app.config import Settings
from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.neighbour import Neighbour
from app.outbound.patience import retry_after
from app.outbound.stubs import Stubs

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.errors import APIError
    from google.genai.types import GenerateContentResponse

MAX_SECONDS = 120.0
RATE = 24_000
"""Samples a second, when the answer does not say."""
RAW = re.compile(r"audio/(l16|pcm)\b", re.IGNORECASE)
"""Samples of 16 bits, without a header that says so."""


@dataclass(frozen=True)
class Speech:
    """A text, spoken."""

    audio: bytes
    content_type: str


class GeminiClient:
    """Speaks. Made by `open_gemini_client`, shared by the runs of a worker."""

    def __init__(self, settings: Settings, stubs: Stubs, *, timeout: float = MAX_SECONDS) -> None:
        """`timeout` is in seconds, for one text."""
        self._settings = settings
        self._stubs = stubs
        self._timeout = timeout
        self._neighbour = Neighbour("gemini", per_minute=settings.gemini_per_minute)
        self._opened: Client | None = None

    async def speak(self, text: str, language: str) -> Speech:
        """`text`, read aloud in its language (ISO 639-1): WAV, or what Gemini sends instead of samples.

        Raises:
            Unavailable: the network, the time, a status of 408 or 5xx, or an answer without speech.
            RateLimited: 429, for as long as the answer says.
            Rejected: Gemini will not say this, the key is missing or wrong, or any other status.
        """
        async with self._neighbour.call():
            client = self._open()
            with _faults_as_errors():
                answer = await client.aio.models.generate_content(
                    model=self._settings.gemini_model,
                    contents=text,
                    config={"response_modalities": ["AUDIO"], "speech_config": {"language_code": language}},
                )
                return _speech(answer)

    async def aclose(self) -> None:
        """Close the connections, if there are any."""
        if self._opened is not None:
            await self._opened.aio.aclose()
            self._opened.close()

    def _open(self) -> Client:
        if self._opened is None:
            # Not at the top: it takes two seconds to import, and not every worker speaks.
            from google.genai import Client
            from google.genai.types import HttpOptions, HttpRetryOptions

            key, base_url = self._address()
            options = HttpOptions(
                base_url=base_url,
                timeout=round(self._timeout * 1000),
                # The run retries, and what it waits can be seen.
                retry_options=HttpRetryOptions(attempts=1),
            )
            self._opened = Client(api_key=key, http_options=options)
        return self._opened

    def _address(self) -> tuple[str, str]:
        if self._settings.stubs(self._settings.gemini_api_key):
            return "stub", self._stubs.url("gemini")
        if self._settings.gemini_api_key is None:
            raise Rejected("Gemini needs a key. Set GEMINI_API_KEY for the workers, then retry the run.")
        return self._settings.gemini_api_key.get_secret_value(), "https://generativelanguage.googleapis.com"


@contextlib.asynccontextmanager
async def open_gemini_client(settings: Settings, stubs: Stubs) -> AsyncGenerator[GeminiClient]:
    """A client that connects when it is first asked."""
    async with contextlib.aclosing(GeminiClient(settings, stubs)) as client:
        yield client


def _speech(answer: GenerateContentResponse) -> Speech:
    candidate = answer.candidates[0] if answer.candidates else None
    for part in (candidate.content.parts or []) if candidate and candidate.content else []:
        if part.inline_data and part.inline_data.data:
            return _with_header(part.inline_data.data, part.inline_data.mime_type or "")
    reason = (candidate.finish_reason if candidate else None) or getattr(answer.prompt_feedback, "block_reason", None)
    if reason is not None and reason.name not in ("STOP", "OTHER", "FINISH_REASON_UNSPECIFIED"):
        raise Rejected(f"Gemini will not say this ({reason.name}). Give another text.")
    raise Unavailable("Gemini answered without speech. Try again.")


def _with_header(data: bytes, content_type: str) -> Speech:
    if not RAW.match(content_type):
        return Speech(data, content_type)
    rate = re.search(r"rate=(\d+)", content_type)
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(int(rate[1]) if rate else RATE)
        wav.writeframes(data)
    return Speech(file.getvalue(), "audio/wav")


@contextlib.contextmanager
def _faults_as_errors() -> Generator[None]:
    from google.genai.errors import APIError, UnknownApiResponseError

    try:
        yield
    except httpx2.TimeoutException as late:
        raise Unavailable("Gemini took too long to answer. Try again later.") from late
    except httpx2.HTTPError as fault:
        raise Unavailable("Gemini cannot be reached. Try again later.") from fault
    except APIError as refused:
        raise _error_of(refused) from refused
    except (UnknownApiResponseError, ValidationError, json.JSONDecodeError) as unreadable:
        raise Unavailable("Gemini's answer cannot be read. Try again.") from unreadable


def _error_of(refused: APIError) -> Unavailable | Rejected:
    answer = f"Gemini answered {refused.code} ({refused.status or 'no reason'})."
    if refused.code == 429:
        wait = retry_after(refused.response.headers.get("Retry-After", ""), time.time())
        return RateLimited(f"{answer} Too much was asked for at once.", retry_after=wait or 0)
    if refused.code == 408 or refused.code >= 500:
        return Unavailable(f"{answer} Try again later.")
    if refused.code in (401, 403):
        return Rejected(f"{answer} Check GEMINI_API_KEY and what it allows, then retry the run.")
    return Rejected(f"{answer} Check GEMINI_MODEL and the length of the text: asking again will not help.")
