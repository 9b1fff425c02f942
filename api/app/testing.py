"""A test kit for actions: perform one without a database, and look at what it did.

::

    async def test_a_retry_does_not_write_the_text_again() -> None:
        first = await perform(action["tell"], {"topic": "lighthouses", "language": "de [stub:500]"})
        assert isinstance(first.error, Unavailable)
        second = await perform(action["tell"], {"topic": "lighthouses", "language": "de"}, after=first)
        assert second.result["text"] and list(second.steps) == ["write", "translate"]
        assert [call["vendor"] for call in second.calls] == ["deepl"]

Other people's services are played by their stubs. What the action does to the database by itself is not caught: test
that over a real one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast

import httpx2

from app.config import Settings
from app.domain.journal import Outcome, Policy
from app.engine.retry import leaves
from app.errors import ChildFailed, RunWaits
from app.outbound.clients import STUBS, Clients, open_clients
from app.outbound.stubs import Stubs
from app.runs.actions import Action
from app.runs.context import Run
from app.runs.problems import describe
from app.runs.signals import Answer, data_of
from app.runs.steps import Steps

P = ParamSpec("P")
R = TypeVar("R")

Child = Any
"""What a child returns, in JSON; the error that it raises; or a function of its params that returns or raises it."""


@dataclass(frozen=True)
class Spawned:
    """A child that an action has asked for."""

    action: str
    params: dict[str, Any]


@dataclass
class Rehearsal:
    """One attempt of an action: how it ended, and what it did on the way."""

    attempt: int
    """1 for the first."""
    returned: Any = None
    """JSON, if it has returned."""
    error: BaseException | None = None
    """What it has raised, if it has."""
    waits_for: str | None = None
    """The signal that it waits for, if it does."""
    steps: dict[str, Any] = field(default_factory=dict[str, Any])
    """The results of all finished steps, in JSON, by name; also of those of earlier attempts."""
    progress: list[tuple[float, float | None, str | None]] = field(
        default_factory=list[tuple[float, float | None, str | None]]
    )
    """Done, total and message, each time that it told them."""
    logs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Level, message and fields of each line."""
    children: list[Spawned] = field(default_factory=list[Spawned])
    """In the order in which they were asked for."""
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What the stubs were asked in this attempt: vendor, path and trouble of each call."""

    @property
    def next_attempt(self) -> int:
        """The number of the attempt after this one: the same, if this one waits."""
        is_asked_to_wait = self.error is not None and not any(
            getattr(each, "uses_attempt", True) for each in leaves(self.error)
        )
        return self.attempt if is_asked_to_wait or self.waits_for is not None else self.attempt + 1

    @property
    def result(self) -> Any:
        """What it returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        assert self.waits_for is None, f"It waits for the signal {self.waits_for!r}."
        return self.returned


async def perform(
    action: Action,
    params: dict[str, Any] | None = None,
    *,
    after: Rehearsal | None = None,
    owner: str | None = None,
    clients: Clients | None = None,
    children: Mapping[str, Child] | None = None,
    signals: Mapping[str, Any] | None = None,
) -> Rehearsal:
    """Perform one attempt of an action, with its run in memory. What it raises is an ending, and not raised here.

    Args:
        params: as they are submitted.
        after: the attempt before, whose steps are finished.
        owner: whose run it is; nobody's if not given.
        clients: in place of those that call the stubs.
        children: what becomes of each child that it waits for, by action.
        signals: the data of the signals that have come, by name; a `SignalTimeout` for one that comes too late.

    Raises:
        InvalidInput: the params do not fit the action's input.
    """
    checked = action.check(params or {})
    done = Rehearsal(after.next_attempt if after else 1, steps=dict(after.steps) if after else {})
    async with _clients(clients, done.calls) as opened:
        run = _RunInMemory(action.name, owner, opened.of(owner), done, children or {}, signals or {})
        try:
            # It is a run as far as an action can see.
            done.returned = await action.call(cast(Run, run), checked)
        except RunWaits as waits:
            done.waits_for = str(waits)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is its ending
            done.error = error
    return done


class _RunInMemory:
    """What the action takes for its run."""

    id = "run_20260105T093000Z_00000001"

    def __init__(
        self,
        action: str,
        owner: str | None,
        clients: Clients,
        done: Rehearsal,
        children: Mapping[str, Child],
        signals: Mapping[str, Any],
    ) -> None:
        self.action = action
        self.owner = owner
        self.attempt = done.attempt
        self.clients = clients
        self._done = done
        self._steps = Steps(done.steps, _keep)
        self._becoming = children
        self._signals = signals

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        self._done.progress.append((done, total, message))

    async def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        self._done.logs.append({"level": level, "message": message, **fields})

    def extend(self, seconds: float) -> None:
        """There is no timeout."""

    async def step(self, name: str, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._steps.step(name, function, *args, **kwargs)

    async def spawn(self, action: str, params: dict[str, Any] | None = None, *, key: str | None = None) -> str:  # noqa: ARG002
        self._done.children.append(Spawned(action, params or {}))
        return f"run_20260105T093000Z_{len(self._done.children):08x}"

    async def gather(
        self, children: Sequence[str | tuple[str, dict[str, Any]]], *, policy: Policy = "cancel"
    ) -> list[Outcome]:
        ids = [child if isinstance(child, str) else await self.spawn(*child) for child in children]
        outcomes = [self._outcome(child_id) for child_id in ids]
        for outcome in outcomes:
            if policy == "cancel" and outcome.error is not None:
                raise ChildFailed(f"Child {outcome.run_id} has failed: {outcome.error['title']}.")
        return outcomes

    async def wait_for(self, signal: str, *, timeout: float | None = None) -> Any:  # noqa: ARG002
        return data_of(await self.step(f"signal:{signal}", self._receive, signal), signal)

    async def _receive(self, signal: str) -> Answer:
        if signal not in self._signals:
            raise RunWaits(signal)
        data = self._signals[signal]
        return Answer(has_timed_out=True) if isinstance(data, BaseException) else Answer(data=data)

    def _outcome(self, child_id: str) -> Outcome:
        child = self._done.children[int(child_id.rpartition("_")[2], 16) - 1]
        assert child.action in self._becoming, (
            f"Say what becomes of a child: perform(…, children={{{child.action!r}: …}})."
        )
        becoming = self._becoming[child.action]
        try:
            result = becoming(child.params) if callable(becoming) else becoming
        except Exception as error:  # noqa: BLE001 - it is how the child ends
            result = error
        if isinstance(result, BaseException):
            return Outcome(child_id, "failed", error=describe(result).document)
        return Outcome(child_id, "succeeded", result)


async def _keep(name: str, result: Any) -> None:
    """The steps of a rehearsal are only in memory."""


@contextlib.asynccontextmanager
async def _clients(given: Clients | None, calls: list[dict[str, Any]]) -> AsyncGenerator[Clients]:
    """Those given, or those that call the stubs, which tell what they were asked in the end."""
    if given is not None:
        yield given
        return
    async with contextlib.aclosing(Stubs(STUBS)) as stubs:
        url = stubs.url("").rstrip("/")
        settings = Settings(_env_file=None, environment="test", stub_generation=True, stubs_url=url)  # pyright: ignore[reportCallIssue]
        async with open_clients(settings) as clients:
            yield clients
        async with httpx2.AsyncClient(trust_env=False) as asking:
            calls += (await asking.get(f"{url}/calls")).json()
