"""Secrets that got into a log line all the same, out of an error of somebody else's: they leave it here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pydantic import SecretStr
from structlog.typing import EventDict, Processor

from app.config import Settings

SHORTEST = 8
"""Characters of a secret that is looked for: less may be part of any word."""
HIDDEN = "***"
_PATTERNS = {
    "rl_": re.compile(r"(rl_[a-z]+_[0-9A-Za-z]{12}_)[0-9A-Za-z_]+"),
    "whsec_": re.compile(r"(whsec_)[0-9A-Za-z+/=]+"),
    "eyJ": re.compile(r"(eyJ)[\w-]{8,}\.[\w-]+\.[\w-]*"),
    "://": re.compile(r"(://[^\s:/@]*:)[^\s/@]+(?=@)"),
    "signature=": re.compile(r"(signature=)[^\s&\"']+"),
}
"""By how they begin, which nearly no line has; the group is what stays."""


def redaction(settings: Settings) -> Processor:
    """Takes secrets out of a rendered line: those of the settings, keys and tokens of callers, passwords in URLs."""
    secrets = sorted({spelling for secret in _secrets(settings) for spelling in (secret, _in_json(secret))}, key=len)

    def redact(_logger: object, _method: str, line: str | EventDict) -> str:
        assert isinstance(line, str)
        # The longest first: one may be part of another.
        for secret in reversed(secrets):
            line = line.replace(secret, HIDDEN)
        for beginning, pattern in _PATTERNS.items():
            if beginning in line:
                line = pattern.sub(rf"\1{HIDDEN}", line)
        return line

    return redact


def _secrets(settings: Settings) -> Iterator[str]:
    values = [getattr(settings, name) for name in Settings.model_fields]
    given = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    if settings.url is not None and settings.url.password is not None:
        given.append(str(settings.url.password))
    for secret in [*given, *settings.webhook_keys]:
        if len(secret) >= SHORTEST:
            yield secret


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
