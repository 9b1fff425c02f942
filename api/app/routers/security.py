"""Who may call. On loopback everybody, elsewhere whoever has the secret; a secret that is sent is always checked."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from app.errors import Unauthorized
from app.routers.dependencies import ServicesDep

HEADER = "X-ROADMAP-AI-SECRET"

_scheme = APIKeyHeader(
    name=HEADER,
    scheme_name="Shared secret",
    description="The value of ROADMAP_AI_SECRET. Not needed on loopback while none is configured.",
    auto_error=False,
)


def authenticate(request: Request, services: ServicesDep, _: Annotated[str | None, Security(_scheme)]) -> None:
    """Let a request through, or not.

    Raises:
        Unauthorized: the secret is missing or wrong.
    """
    # Not the scheme's value, which is None for a header that is empty.
    sent = request.headers.get(HEADER)
    if sent is None:
        if not services.settings.open_to_anyone:
            raise Unauthorized(detail="Send the shared secret in X-ROADMAP-AI-SECRET.")
    elif not _is_right(sent, services.settings.secret):
        raise Unauthorized(detail="The secret in X-ROADMAP-AI-SECRET is not right.")


def _is_right(sent: str, expected: str | None) -> bool:
    # Bytes: comparing text that is not ASCII would raise.
    return expected is not None and hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), expected.encode())
