"""The states of a run, and which may follow which. Pure.

::

                  ┌─────────────────────────────── cancel ──────────────────────────┐
    scheduled ──► queued ──► running ──► succeeded                                  ▼
                    ▲          │ ├─────► failed ◄──────────────────────────────► cancelled
                    │          │ └─ error, attempts left ─► retrying ─► running
                    └──────────┘  the worker was told to stop

A run that is asked to wait is scheduled; one that waits for its children or for a signal is scheduled without a time.
Either is retrying, if an attempt has failed before.
"""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run is. Stored in `action_runs.state`, and the same word on the wire."""

    SCHEDULED = "scheduled"
    """Its time has not come, or what it waits for."""
    QUEUED = "queued"
    """Waiting for a worker."""
    RUNNING = "running"
    """A worker performs it."""
    RETRYING = "retrying"
    """An attempt failed; waiting for the next one."""
    SUCCEEDED = "succeeded"
    """Ended with a result."""
    FAILED = "failed"
    """Ended with an error."""
    CANCELLED = "cancelled"
    """Ended because somebody asked."""

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self in _FINAL


_FINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
