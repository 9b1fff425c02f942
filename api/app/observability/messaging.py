"""Runs in the words of OpenTelemetry's conventions for messaging: sent by whoever submits, processed by a worker."""

from __future__ import annotations

import functools
from typing import Literal

from opentelemetry import metrics

Operation = Literal["defer", "process"]

SYSTEM = "procrastinate"
_meter = metrics.get_meter("runledger.runs")
_sent = _meter.create_counter(
    "messaging.client.sent.messages", unit="{message}", description="Runs that were accepted, by action"
)
_processed = _meter.create_histogram(
    "messaging.process.duration",
    unit="s",
    description="How long attempts took, by action and by how they ended",
    explicit_bucket_boundaries_advisory=[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0],
)


def count_accepted(action: str) -> None:
    """A run of the action was stored."""
    _sent.add(1, _attributes("defer", action))


def measure_attempt(action: str, outcome: str, seconds: float) -> None:
    """An attempt of a run of the action has ended: `succeeded`, `failed`, `retried` and so on."""
    _processed.record(seconds, _attributes("process", action, outcome))


@functools.lru_cache(maxsize=1_024)
def _attributes(operation: Operation, action: str, outcome: str | None = None) -> dict[str, str]:
    # Not the queue: whoever submits may name one, and each would be a series of its own.
    told = {"messaging.system": SYSTEM, "messaging.operation.name": operation, "runledger.action": action}
    return told if outcome is None else told | {"runledger.outcome": outcome}
