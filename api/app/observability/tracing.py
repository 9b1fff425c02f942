"""One trace from the request that asks for a run to the requests that the run makes.

Spans go to whoever has set a tracer provider, such as `opentelemetry-instrument`. Without one, nothing is made or sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_NAME = "runledger"


def carried_trace(headers: Mapping[str, str]) -> dict[str, str] | None:
    """The W3C trace context to store with a run: the current span's, or else what the caller sent."""
    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    elif any(field in headers for field in propagate.get_global_textmap().fields):
        propagate.inject(carrier, propagate.extract(headers))
    return carrier or None


def is_on() -> bool:
    """Whether anybody wants spans."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


@contextlib.contextmanager
def performing(action: str, run_id: str, attempt: int, carried: Mapping[str, str] | None) -> Generator[None]:
    """Around one attempt of a run: a span in the trace that the run carries."""
    attributes = {"runledger.action": action, "runledger.run_id": run_id, "runledger.attempt": attempt}
    with _span(f"perform {action}", SpanKind.CONSUMER, attributes, propagate.extract(carried or {})):
        yield


@contextlib.contextmanager
def requesting(method: str, host: str) -> Generator[dict[str, str]]:
    """Around one request to another host: a span, and the headers that tell the host of it."""
    headers: dict[str, str] = {}
    if not is_on():
        yield headers
        return
    attributes = {"http.request.method": method, "server.address": host}
    with _span(method, SpanKind.CLIENT, attributes):
        # Only this: what else the caller's context carries is not meant for hosts that he names.
        TraceContextTextMapPropagator().inject(headers)
        yield headers


@contextlib.contextmanager
def _span(
    name: str, kind: SpanKind, attributes: Mapping[str, str | int], context: Context | None = None
) -> Generator[None]:
    """A span that tells of an error its class, and not its words: they may repeat what callers have sent."""
    with trace.get_tracer(_NAME).start_as_current_span(
        name, context, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
