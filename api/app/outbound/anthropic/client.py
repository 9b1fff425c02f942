"""Claude, by Anthropic: texts and classifications that fit a schema."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from app.config import Settings
from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.neighbour import Neighbour
from app.outbound.patience import retry_after
from app.outbound.stubs import Stubs

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic
    from anthropic.types import JSONOutputFormatParam

MAX_TOKENS = 4096
"""Of one answer."""
MAX_SECONDS = 120.0
LATER = frozenset({408, 409})
"""The statuses below 500 that say: the same request may succeed later. 429 is told apart."""

M = TypeVar("M", bound=BaseModel)


class AnthropicClient:
    """Asks Claude. Made by `open_anthropic_client`, shared by the runs of a worker."""

    def __init__(self, settings: Settings, stubs: Stubs, *, timeout: float = MAX_SECONDS) -> None:
        """`timeout` is in seconds, for one answer."""
        self._settings = settings
        self._stubs = stubs
        self._timeout = timeout
        self._neighbour = Neighbour("anthropic", per_minute=settings.anthropic_per_minute)
        self._opened: AsyncAnthropic | None = None

    async def write(self, *, instructions: str, prompt: str, output: type[M]) -> M:
        """Claude's answer to `prompt`, read as `output`. `instructions` say how to answer, and are the system prompt.

        Raises:
            Unavailable: the network, the time, a status of 408, 409 or 5xx, or an answer that does not fit `output`:
                asked again, Claude answers something else.
            RateLimited: 429, for as long as the answer says.
            Rejected: Claude will not answer this, the answer is too long, the key is missing or wrong, or any other
                status.
        """
        async with self._neighbour.call():
            client = self._open()
            with _faults_as_errors():
                message = await client.messages.create(
                    model=self._settings.anthropic_model,
                    max_tokens=MAX_TOKENS,
                    system=instructions,
                    messages=[{"role": "user", "content": prompt}],
                    output_config={"format": _format(output)},
                )
                # Before it is read: what is cut short or refused is no JSON either.
                _expect_whole(message.stop_reason)
                text = "".join(block.text for block in message.content if block.type == "text")
                return output.model_validate_json(text)

    async def aclose(self) -> None:
        """Close the connections, if there are any."""
        if self._opened is not None:
            await self._opened.close()

    def _open(self) -> AsyncAnthropic:
        if self._opened is None:
            # Not at the top: it takes a second to import, and not every worker asks Claude.
            from anthropic import AsyncAnthropic

            key, base_url = self._address()
            # The run retries, and what it waits can be seen.
            self._opened = AsyncAnthropic(api_key=key, base_url=base_url, max_retries=0, timeout=self._timeout)
        return self._opened

    def _address(self) -> tuple[str, str]:
        if self._settings.stubs(self._settings.anthropic_api_key):
            return "stub", self._stubs.url("anthropic")
        if self._settings.anthropic_api_key is None:
            raise Rejected("Claude needs a key. Set ANTHROPIC_API_KEY for the workers, then retry the run.")
        return self._settings.anthropic_api_key.get_secret_value(), "https://api.anthropic.com"


@contextlib.asynccontextmanager
async def open_anthropic_client(settings: Settings, stubs: Stubs) -> AsyncGenerator[AnthropicClient]:
    """A client that connects when it is first asked."""
    async with contextlib.aclosing(AnthropicClient(settings, stubs)) as client:
        yield client


def _format(output: type[BaseModel]) -> JSONOutputFormatParam:
    from anthropic import transform_schema

    return {"type": "json_schema", "schema": transform_schema(output)}


@contextlib.contextmanager
def _faults_as_errors() -> Generator[None]:
    from anthropic import APIConnectionError, APIResponseValidationError, APIStatusError, APITimeoutError

    try:
        yield
    except APITimeoutError as late:
        raise Unavailable("Anthropic took too long to answer. Try again later.") from late
    except APIConnectionError as fault:
        raise Unavailable("Anthropic cannot be reached. Try again later.") from fault
    except APIStatusError as refused:
        raise _error_of(refused) from refused
    # Not chained: the reasons quote the answer, which may repeat what was asked.
    except (APIResponseValidationError, ValidationError, json.JSONDecodeError):
        raise Unavailable("Anthropic's answer does not fit the schema. Try again.") from None


def _error_of(refused: APIStatusError) -> Unavailable | Rejected:
    status = refused.status_code
    answer = f"Anthropic answered {status} ({refused.type or 'no reason'})."
    if status == 429:
        wait = retry_after(refused.response.headers.get("Retry-After", ""), time.time())
        return RateLimited(f"{answer} Too much was asked for at once.", retry_after=wait or 0)
    if status in LATER or status >= 500:
        return Unavailable(f"{answer} Try again later.")
    if status in (401, 403):
        return Rejected(f"{answer} Check ANTHROPIC_API_KEY and what it allows, then retry the run.")
    return Rejected(f"{answer} Check ANTHROPIC_MODEL and the length of the text: asking again will not help.")


def _expect_whole(stop_reason: str | None) -> None:
    if stop_reason == "refusal":
        raise Rejected("Claude will not answer this. Ask for something else.")
    if stop_reason in ("max_tokens", "model_context_window_exceeded"):
        raise Rejected(f"Claude's answer is longer than {MAX_TOKENS} tokens. Ask for less at once.")
