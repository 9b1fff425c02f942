"""The hosts of the web that have failed lately: each is left alone for a while."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Generator
from weakref import WeakSet

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from purgatory.domain.model import OPENED, Context, OpenedState

from app.errors import RateLimited, Rejected
from app.outbound.neighbour import FAILURES, RECOVERY_SECONDS, left_alone

REMEMBERED = 1000
"""Hosts. Beyond that, the one that was asked longest ago is forgotten."""


class Hosts:
    """A circuit breaker for each host that was asked lately: unlike a `Neighbour`, forgotten when others come."""

    def __init__(self) -> None:
        self._circuits: OrderedDict[str, Context] = OrderedDict()
        _all.add(self)

    @property
    def left_alone(self) -> int:
        """How many hosts are not asked now."""
        begun = time.time() - RECOVERY_SECONDS
        return sum(each.state == OPENED and (each.opened_at or 0) > begun for each in self._circuits.values())

    @contextlib.contextmanager
    def asking(self, host: str) -> Generator[None]:
        """Around one request of the host, in which what goes wrong has become an `ActionError`.

        Raises:
            RateLimited: it has failed so often that it is not asked now.
        """
        circuit = self._circuit(host)
        try:
            with circuit:
                yield
        except OpenedState as opened:
            raise left_alone(host, opened) from None
        finally:
            circuit.messages.clear()  # nobody listens

    def _circuit(self, host: str) -> Context:
        circuit = self._circuits.pop(host, None) or Context(
            host, FAILURES, RECOVERY_SECONDS, exclude=[RateLimited, Rejected, asyncio.CancelledError]
        )
        self._circuits[host] = circuit
        if len(self._circuits) > REMEMBERED:
            self._circuits.popitem(last=False)
        return circuit


_all = WeakSet[Hosts]()


def _observe(_: CallbackOptions) -> list[Observation]:
    # How many, not which: a series a host would be as many series as there are hosts.
    return [Observation(sum(hosts.left_alone for hosts in _all))]


metrics.get_meter("runledger.outbound").create_observable_gauge(
    "runledger.outbound.hosts_left_alone",
    [_observe],
    unit="{host}",
    description="Hosts of the web that have failed so often that they are not asked now",
)
