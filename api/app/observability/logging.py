"""Log lines: readable on a terminal, JSON elsewhere, and never an argument of a job, nor a secret."""

from __future__ import annotations

import logging
import re
import sys

import structlog
import structlog.tracebacks
from structlog.typing import Processor
from typing_extensions import override

from app.config import Settings
from app.observability.probes import WithoutProbes
from app.observability.redaction import redaction

_CALL = re.compile(r"(?P<job>[\w.:-]+\[(?:\d+|None)\])\(.*\)| - Result: .*", re.DOTALL)
_OURS = ("job_id", "action", "attempt", "seconds")
# Local variables hold what callers sent, and secrets.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access")
_QUIET = (
    "procrastinate", "httpx2", "httpcore2", "trafilatura", "htmldate", "asyncio", "alembic",
    "anthropic", "deepl", "google_genai",
)  # fmt: skip
"""Those that tell too much; the last three also what they were asked."""


class WithoutArguments(logging.Filter):
    """Procrastinate writes the arguments of jobs into its messages and extras: take them out."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("procrastinate"):
            record.msg = _CALL.sub(lambda match: match["job"] or "", record.getMessage())
            record.args = ()
            for name in ("job", "jobs", "kwargs", "result", "payload"):
                record.__dict__.pop(name, None)
        return True


def configure_logging(settings: Settings) -> None:
    """Send every log line of the process, ours and the libraries', to stderr in one format."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(allow=_OURS),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    on_a_terminal = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    as_json: list[Processor] = [_TRACEBACKS, structlog.processors.JSONRenderer()]
    rendering: list[Processor] = as_json if settings.log_format == "json" else [on_a_terminal]
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(WithoutArguments())
    handler.addFilter(WithoutProbes())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering, redaction(settings)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for logger in map(logging.getLogger, _UVICORN):
        # One without a handler was told to be silent, or leaves its lines to its parent.
        if logger.handlers:
            logger.handlers.clear()
            logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
