"""What this process has counted, in Prometheus' words: `/metrics` of the API, METRICS_PORT of a worker.

Instruments are OpenTelemetry's. They count from the first time that somebody asks: who does not ask pays nothing.
Whoever has set a meter provider, as `opentelemetry-instrument` does, keeps it.
"""

from __future__ import annotations

import functools

from app.errors import ConfigurationError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def told() -> str:
    """All metrics of this process. Blocks: for a thread."""
    from prometheus_client import REGISTRY, generate_latest

    _count()
    return generate_latest(REGISTRY).decode()


def serve(port: int) -> None:
    """Tell them on this port, on all addresses, to whoever asks, as long as the process lives.

    Raises:
        ConfigurationError: the port cannot be listened on.
    """
    from prometheus_client import start_http_server

    _count()
    try:
        start_http_server(port)
    except OSError as fault:
        raise ConfigurationError(
            f"METRICS_PORT={port} cannot be listened on ({fault.strerror}). Set another."
        ) from fault


@functools.cache
def _count() -> None:
    # Not at the top, nor the imports above: they take a tenth of a second, and not everybody asks.
    from opentelemetry import metrics
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider

    if not isinstance(metrics.get_meter_provider(), MeterProvider):
        metrics.set_meter_provider(MeterProvider([PrometheusMetricReader(scope_info_enabled=False)]))
