"""Requests and answers: one connection pool, patience with an API that restarts, and every refusal an exception."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict

import httpx2
from pydantic import ValidationError

from runledger_client.errors import NotRunledger, Refused, TryLater, Unreachable
from runledger_client.models import Problem

TIMEOUT_SECONDS = 10.0
ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
"""An API that asks for more patience than this is asked again anyway."""

_LOCAL = ("127.0.0.1", "::1", "localhost")
_BROKEN_OFF = (httpx2.ReadError, httpx2.ReadTimeout, httpx2.WriteError, httpx2.RemoteProtocolError)
_LATER = (429, 502, 503, 504)


class _UniqueKey(TypedDict):
    key: str


class Unique(_UniqueKey, total=False):
    """At most one run of `key` at a time."""

    scope: Literal["waiting", "unended"]
    on_conflict: Literal["return_existing", "replace", "reject"]


class RunOptions(TypedDict, total=False):
    """What a submission may say beside action and params; see `POST /runs`."""

    queue: str
    priority: int
    lock: str
    queueing_lock: str
    schedule_at: datetime
    delay: float
    start_deadline: datetime
    max_attempts: int
    tags: list[str]
    unique: Unique
    webhook: str


class Requests:
    """Asks the API, and asks again what may be asked twice.

    An API that was never there is not waited for; one that was may restart.
    """

    def __init__(self, url: str, headers: Mapping[str, str], transport: httpx2.AsyncBaseTransport | None) -> None:
        self.url = url
        base = httpx2.URL(url)
        self.http = httpx2.AsyncClient(
            base_url=base,
            headers=dict(headers),
            timeout=TIMEOUT_SECONDS,
            transport=transport,
            # A proxy for the outside cannot reach what listens on this machine.
            trust_env=base.host not in _LOCAL,
        )
        self.is_there = False
        """Whether anybody has ever taken a connection."""

    async def ask(self, method: str, path: str, *, repeatable: bool, **options: Any) -> Any:
        """The JSON that the API answers.

        Args:
            repeatable: whether doing it twice does no more than doing it once.
            options: of `httpx2.AsyncClient.request`.
        """
        for attempt in range(1, ATTEMPTS):
            try:
                return await self._ask_once(method, path, options)
            except (Unreachable, TryLater) as error:
                if not (repeatable and self.is_there):
                    raise
                await asyncio.sleep(pause(error, attempt))
        return await self._ask_once(method, path, options)

    async def _ask_once(self, method: str, path: str, options: dict[str, Any]) -> Any:
        with self.reaching():
            response = await self.http.request(method, path, **options)
        self.is_there = True
        if response.is_success and _is(response, "application/json"):
            return response.json()
        raise refusal(self.url, response)

    @contextlib.contextmanager
    def reaching(self) -> Generator[None]:
        """Turn a broken connection into `Unreachable`."""
        try:
            yield
        except httpx2.TransportError as error:
            self.is_there |= isinstance(error, _BROKEN_OFF)
            raise Unreachable(
                f"The API at {self.url} does not answer ({str(error) or type(error).__name__})."
            ) from error


def pause(error: Unreachable | TryLater, attempt: int) -> float:
    """Seconds to wait after so many attempts: full jitter, and at least what the API asks for."""
    asked = error.retry_after if isinstance(error, TryLater) else 0.0
    return max(random.uniform(0, FIRST_PAUSE_SECONDS * 2**attempt), min(asked, LONGEST_PAUSE_SECONDS))


def refusal(url: str, response: httpx2.Response) -> Refused | NotRunledger | Unreachable:
    """What an answer says that is not the one hoped for. Its body must have been read."""
    status = response.status_code
    if _is(response, "application/problem+json"):
        with contextlib.suppress(ValidationError):
            problem = Problem.model_validate_json(response.content)
            later = status in _LATER or "Retry-After" in response.headers
            return TryLater(problem, status, _retry_after(response)) if later else Refused(problem, status)
    if status in _LATER:
        # A proxy in front of an API that is away.
        return Unreachable(f"The API at {url} does not answer ({status}).")
    return NotRunledger(f"{url} answers {status}, but not as Runledger's API does.", status)


def _retry_after(response: httpx2.Response) -> float:
    header = response.headers.get("Retry-After", "")
    return float(header) if header.isascii() and header.isdecimal() else 0.0


def _is(response: httpx2.Response, media_type: str) -> bool:
    return response.headers.get("Content-Type", "").partition(";")[0] == media_type
