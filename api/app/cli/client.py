"""The API as the commands use it: JSON in and out, server-sent events, and every refusal a `Failure`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Any, Self

import httpx2

from app.cli.address import url_of
from app.cli.events import Event, reason
from app.cli.failure import Failure, NotReached
from app.config import LOOPBACK, Settings

TIMEOUT_SECONDS = 10.0
SILENCE_SECONDS = 45.0
"""The stream says something every 15 s; a longer silence is a broken connection."""
RECONNECT_SECONDS = 1.0
RECONNECTS = 30

NOTHING_MORE = 204
_TRANSIENT = (502, 503, 504)
_ADVICE = {
    "unauthorized": "Set ROADMAP_AI_SECRET to the secret that the API was started with.",
    "unknown-action": "List those there are with: runledger actions",
    "run-not-found": "List those there are with: runledger runs list",
    "run-final": "Read it with: runledger runs get ID",
    "database-behind": "Run on the API's machine: runledger db upgrade",
}


class Client:
    """A connection to the API of these settings, as an async context manager.

    Every method raises `Failure` when the API refuses, and `NotReached` when it does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = (settings.runledger_url or url_of(settings.host, settings.port)).rstrip("/")
        parsed = _parsed(self.url)
        self._http = httpx2.AsyncClient(
            base_url=parsed,
            headers=_credential(settings),
            timeout=TIMEOUT_SECONDS,
            # A proxy for the outside cannot reach what listens on this machine.
            trust_env=parsed.host not in LOOPBACK,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON at a path; parameters that are `None` are not sent."""
        sent = {name: value for name, value in query.items() if value is not None}
        with self._reaching():
            response = await self._http.get(path, params=sent)
        return self._answer(response)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON that the API answers."""
        with self._reaching():
            response = await self._http.post(path, json=body)
        return self._answer(response)

    async def follow(self, path: str) -> AsyncGenerator[Event]:
        """The events of the run at `path`, each once and in order, and last `end`; across broken connections."""
        seen, failures = "", RECONNECTS
        while True:
            try:
                async with contextlib.aclosing(self._stream(path, after=seen)) as stream:
                    async for event in stream:
                        failures = 0
                        if event is None:
                            continue
                        yield event
                        seen = event.id
                        if event.type == "end":
                            return
            except NotReached:
                failures += 1
                if failures > RECONNECTS:
                    raise
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _stream(self, path: str, *, after: str) -> AsyncGenerator[Event | None]:
        """One connection's events; `None` is a sign of life."""
        patience = httpx2.Timeout(TIMEOUT_SECONDS, read=SILENCE_SECONDS)
        with self._reaching():
            async with self._http.sse(f"{path}/events", headers={"Last-Event-ID": after}, timeout=patience) as source:
                if not source.response.is_success:
                    await source.response.aread()
                    raise self._refusal(source.response)
                if source.response.status_code == NOTHING_MORE:
                    # The connection broke between the run's last event and the run itself.
                    yield Event(after, "end", await self.get(path))
                    return
                async for sent in source:
                    has_happened = sent.data and sent.event != "snapshot"
                    yield Event(sent.id, sent.event, json.loads(sent.data)) if has_happened else None

    @contextlib.contextmanager
    def _reaching(self) -> Generator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            raise NotReached(
                f"The API at {self.url} does not answer ({str(error) or type(error).__name__}).",
                "Start it with: runledger up — or say where it is with RUNLEDGER_URL.",
            ) from None

    def _answer(self, response: httpx2.Response) -> Any:
        if response.is_success and _is(response, "application/json"):
            return response.json()
        raise self._refusal(response)

    def _refusal(self, response: httpx2.Response) -> Failure:
        kind = NotReached if response.status_code in _TRANSIENT else Failure
        if _is(response, "application/problem+json"):
            return kind(*_explained(response.json()))
        return kind(
            f"{self.url} answers {response.status_code}, but not as Runledger's API does.",
            "Say where the API is with RUNLEDGER_URL.",
        )


def _credential(settings: Settings) -> dict[str, str]:
    secret = settings.roadmap_ai_secret
    return {"X-ROADMAP-AI-SECRET": secret.get_secret_value()} if secret else {}


def _parsed(url: str) -> httpx2.URL:
    try:
        return httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise Failure(f"RUNLEDGER_URL is not a URL: {error}.", "Set it like http://127.0.0.1:8000") from None


def _is(response: httpx2.Response, media_type: str) -> bool:
    return response.headers.get("Content-Type", "").partition(";")[0] == media_type


def _explained(problem: dict[str, Any]) -> tuple[str, str | None]:
    faults = [f"  {fault['pointer']}: {fault['detail']}" for fault in problem.get("errors", [])]
    slug = str(problem.get("type", "")).rpartition("/")[2]
    return "\n".join([reason(problem), *faults]), _ADVICE.get(slug)
