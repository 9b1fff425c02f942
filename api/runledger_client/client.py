"""The client: what can be done with runs, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncGenerator
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2
from typing_extensions import Unpack

from runledger_client.errors import RunFailed, TryLater, Unreachable
from runledger_client.models import Event, Page, Reason, Run, Signal
from runledger_client.requests import TIMEOUT_SECONDS, Requests, RunOptions, pause, refusal

SILENCE_SECONDS = 45.0
"""The stream says something every 15 s; a longer silence is a broken connection."""
RECONNECT_SECONDS = 1.0
RECONNECTS = 30

NOTHING_MORE = 204


class Client:
    """A connection to the API at `url`, as an async context manager.

    Every method may raise `Unreachable`, `NotRunledger` and `Refused`; see `runledger_client.errors`.

    Args:
        secret: the shared secret, sent in `X-ROADMAP-AI-SECRET`.
        token: an API key or a JWT, sent as `Authorization: Bearer`.
        transport: stands in for the network.

    Raises:
        ValueError: the URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | None = None,
        token: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        headers = {} if secret is None else {"X-ROADMAP-AI-SECRET": secret}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if not _is_url(self.url):
            raise ValueError("This is not a URL like http://127.0.0.1:8000")
        self._requests = Requests(self.url, headers, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._requests.http.aclose()

    async def submit(
        self,
        action: str,
        params: dict[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> Run:
        """Submit an action, once: where an answer is lost, the same is sent again under the same idempotency key.

        Args:
            idempotency_key: one of your own, such as the number of an order, makes two calls one run too.
            options: queue, priority, lock, queueing_lock, schedule_at or delay (seconds), start_deadline, max_attempts,
                tags, unique, webhook.
        """
        said = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in options.items()}
        body = {"action": action, "params": params or {}, **said}
        key = {"Idempotency-Key": f'"{idempotency_key or uuid.uuid4()}"'}
        return Run.model_validate(await self._requests.ask("POST", "/runs", repeatable=True, json=body, headers=key))

    async def get(self, run_id: str, *, traceback: bool = False) -> Run:
        """A run as it is now; with `traceback`, also where its last attempt failed."""
        query = {"include": "traceback"} if traceback else {}
        return Run.model_validate(await self._requests.ask("GET", _path(run_id), repeatable=True, params=query))

    async def list(
        self,
        *,
        state: str | None = None,
        action: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """A page of runs, newest first."""
        narrowed = {"state": state, "action": action, "queue": queue, "tag": tag, "limit": limit, "cursor": cursor}
        query = {name: value for name, value in narrowed.items() if value is not None}
        return Page.model_validate(await self._requests.ask("GET", "/runs", repeatable=True, params=query))

    async def cancel(self, run_id: str) -> Run:
        """Cancel a run: at once if it waits, else as soon as its worker has heard."""
        return Run.model_validate(await self._requests.ask("POST", f"{_path(run_id)}/cancel", repeatable=True))

    async def retry(self, run_id: str) -> Run:
        """Give a run that failed or was cancelled another attempt."""
        return Run.model_validate(await self._requests.ask("POST", f"{_path(run_id)}/retry", repeatable=False))

    async def signal(self, run_id: str, name: str, data: Any = None) -> Signal:
        """Tell a run something that it waits for, or will wait for. The same may be told again."""
        path = f"{_path(run_id)}/signals/{quote(name, safe='')}"
        return Signal.model_validate(await self._requests.ask("POST", path, repeatable=True, json=data))

    async def why(self, run_id: str) -> list[Reason]:
        """Why a run is not running, the first cause first."""
        answer = await self._requests.ask("GET", f"{_path(run_id)}/why", repeatable=True)
        return [Reason.model_validate(reason) for reason in answer["reasons"]]

    async def actions(self) -> list[dict[str, Any]]:
        """What can be submitted: name, description, and the JSON Schemas of input and output."""
        return await self._requests.ask("GET", "/actions", repeatable=True)

    async def wait(self, run_id: str, *, timeout: float | None = None) -> Run:
        """The run as it ended, however it did.

        Raises:
            TimeoutError: it has not ended in `timeout` seconds. It goes on.
        """
        async with asyncio.timeout(timeout), contextlib.aclosing(self.stream(run_id)) as events:
            async for event in events:
                if event.type == "end":
                    return Run.model_validate(event.data)
        raise AssertionError("a stream ends with the end of its run")

    async def result(self, run_id: str, *, timeout: float | None = None) -> Any:
        """What the action returned, when it has.

        Raises:
            RunFailed: it failed, or was cancelled.
            TimeoutError: it has not ended in `timeout` seconds. It goes on.
        """
        run = await self.wait(run_id, timeout=timeout)
        if run.state != "succeeded":
            raise RunFailed(run)
        return run.result

    async def stream(self, run_id: str, *, after: str = "") -> AsyncGenerator[Event]:
        """The events of a run, each once and in order, and last `end`; across broken connections.

        Args:
            after: the id of the last event that was seen before.
        """
        # An API that was never there is not waited for.
        seen, failures = after, RECONNECTS
        while True:
            wait = RECONNECT_SECONDS
            try:
                async with contextlib.aclosing(self._connection(run_id, after=seen)) as connection:
                    async for event in connection:
                        failures = 0
                        if event is None:
                            continue
                        yield event
                        seen = event.id
                        if event.type == "end":
                            return
            except (Unreachable, TryLater) as error:
                failures += 1
                if failures > RECONNECTS:
                    raise
                wait = max(wait, pause(error, attempt=1))
            await asyncio.sleep(wait)

    async def _connection(self, run_id: str, *, after: str) -> AsyncGenerator[Event | None]:
        """One connection's events; `None` is a sign of life."""
        patience = httpx2.Timeout(TIMEOUT_SECONDS, read=SILENCE_SECONDS)
        headers = {"Last-Event-ID": after}
        with self._requests.reaching():
            async with self._requests.http.sse(f"{_path(run_id)}/events", headers=headers, timeout=patience) as source:
                self._requests.is_there = True
                if not source.response.is_success:
                    await source.response.aread()
                    raise refusal(self.url, source.response)
                if source.response.status_code == NOTHING_MORE:
                    # The connection broke between the run's last event and the run itself.
                    yield Event(after, "end", (await self.get(run_id)).as_json())
                    return
                async for sent in source:
                    has_happened = sent.data and sent.event != "snapshot"
                    yield Event(sent.id, sent.event, json.loads(sent.data)) if has_happened else None


def _is_url(text: str) -> bool:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def _path(run_id: str) -> str:
    return f"/runs/{quote(run_id, safe='')}"
