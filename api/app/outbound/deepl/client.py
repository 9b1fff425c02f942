"""DeepL: translations."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING

from app.config import Settings
from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.deepl.languages import supports, target_code
from app.outbound.neighbour import Neighbour
from app.outbound.stubs import Stubs

if TYPE_CHECKING:
    import deepl

MAX_SECONDS = 30.0
NO_QUOTA = 456
"""DeepL's own status: what was paid for has been used."""


class DeepLClient:
    """Translates. Made by `open_deepl_client`, shared by the runs of a worker."""

    def __init__(self, settings: Settings, stubs: Stubs, *, timeout: float = MAX_SECONDS) -> None:
        """`timeout` is in seconds, for one text."""
        self._settings = settings
        self._stubs = stubs
        self._timeout = timeout
        self._neighbour = Neighbour("deepl", per_minute=settings.deepl_per_minute)
        self._opened: deepl.DeepLClient | None = None

    async def translate(self, text: str, *, source: str, target: str) -> str:
        """`text` in another language. Languages are ISO 639-1.

        Raises:
            Unavailable: the network, the time, a status of 5xx, or an answer that cannot be read.
            RateLimited: 429; DeepL does not say for how long.
            Rejected: DeepL does not translate between these languages, the key is missing or wrong, its quota is used
                up, or any other status.
        """
        if not supports(source, target):
            raise Rejected(f"DeepL does not translate from {source!r} to {target!r}. Choose other languages.")
        async with self._neighbour.call():
            client = self._open()
            with _faults_as_errors():
                # Its library is not asynchronous. A thread that is left behind ends at its own timeout.
                async with asyncio.timeout(self._timeout):
                    translated = await asyncio.to_thread(
                        client.translate_text, text, source_lang=source.upper(), target_lang=target_code(target)
                    )
                assert not isinstance(translated, list)
                return translated.text

    async def aclose(self) -> None:
        """Close the connections, if there are any."""
        if self._opened is not None:
            self._opened.close()

    def _open(self) -> deepl.DeepLClient:
        if self._opened is None:
            # Not at the top: it brings another HTTP library, and not every worker translates.
            import deepl

            # The run retries, and what it waits can be seen.
            deepl.http_client.max_network_retries = 0
            deepl.http_client.min_connection_timeout = MAX_SECONDS
            key, server_url = self._address()
            self._opened = deepl.DeepLClient(key, server_url=server_url, send_platform_info=False)
        return self._opened

    def _address(self) -> tuple[str, str | None]:
        """The key, and where to call; `None`: the key says."""
        if self._settings.stubs(self._settings.deepl_api_key):
            return "stub", self._stubs.url("deepl") + "/"
        if self._settings.deepl_api_key is None:
            raise Rejected("DeepL needs a key. Set DEEPL_API_KEY for the workers, then retry the run.")
        return self._settings.deepl_api_key.get_secret_value(), None


@contextlib.asynccontextmanager
async def open_deepl_client(settings: Settings, stubs: Stubs) -> AsyncGenerator[DeepLClient]:
    """A client that connects when it is first asked."""
    async with contextlib.aclosing(DeepLClient(settings, stubs)) as client:
        yield client


@contextlib.contextmanager
def _faults_as_errors() -> Generator[None]:
    from deepl.exceptions import ConnectionException, DeepLException

    try:
        yield
    except TimeoutError as late:
        raise Unavailable("DeepL took too long to answer. Try again later.") from late
    except ConnectionException as fault:
        raise Unavailable("DeepL cannot be reached. Try again later.") from fault
    except DeepLException as refused:
        raise _error_of(refused.http_status_code or 0) from refused
    except (LookupError, TypeError, AttributeError) as unreadable:
        raise Unavailable("DeepL's answer cannot be read. Try again.") from unreadable


def _error_of(status: int) -> Unavailable | Rejected:
    answer = f"DeepL answered {status}."
    if status == 429:
        return RateLimited(f"{answer} Too much was asked for at once.", retry_after=0)
    if status >= 500:
        return Unavailable(f"{answer} Try again later.")
    if status in (401, 403):
        return Rejected(f"{answer} Check DEEPL_API_KEY, then retry the run.")
    if status == NO_QUOTA:
        return Rejected(f"{answer} What was paid for has been used up: extend it, then retry the run.")
    return Rejected(f"{answer} Check the languages and the length of the text: asking again will not help.")
