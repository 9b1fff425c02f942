"""The trace that a run belongs to: that of the request that asked for it."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import propagate, trace


def carried_trace(headers: Mapping[str, str]) -> dict[str, str] | None:
    """The W3C trace context to store with a run: the current span's, or else what the caller sent."""
    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    elif any(field in headers for field in propagate.get_global_textmap().fields):
        propagate.inject(carrier, propagate.extract(headers))
    return carrier or None
