"""Requests that only ask for health: several a minute from each probe, of which no trace, metric or log shall tell."""

from __future__ import annotations

import logging

from starlette.types import Scope
from typing_extensions import override

PROBES = frozenset({"/livez", "/readyz", "/healthz", "/startupz", "/health"})
"""Their paths."""


def is_probe(scope: Scope) -> bool:
    """Whether a request is one."""
    return scope["type"] == "http" and scope["path"] in PROBES


class WithoutProbes(logging.Filter):
    """Leaves them out of uvicorn's access log, where somebody has it on: `runledger api` has none."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        match record.args:
            case (_, _, str(url), *_) if record.name == "uvicorn.access":
                return url.partition("?")[0] not in PROBES
            case _:
                return True
