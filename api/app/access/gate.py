"""Whoever sends a credential is asked for it here: shared secrets, API keys and tokens, and who guesses is slowed."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Sequence
from ipaddress import IPv6Address

from sqlalchemy.ext.asyncio import AsyncEngine

from app.access.buckets import Buckets, Standing
from app.access.keyring import KeyRing
from app.access.networks import read_address
from app.access.principal import LOCAL, SECRET, Principal
from app.access.tokens import Tokens
from app.config import Settings
from app.errors import TooManyRequests, TwoCredentials, Unauthorized

SECRET_HEADER = "X-ROADMAP-AI-SECRET"  # noqa: S105 - the name of a header
CREDENTIALS = (SECRET_HEADER.lower().encode(), b"authorization")
"""The headers that a credential may be in, as they come over the wire."""
FAILURES_A_MINUTE = 10
_KEY_PREFIX = b"rl_"


class Gate:
    """The door-keeper of one API process."""

    def __init__(self, settings: Settings, engine: AsyncEngine) -> None:
        self._secrets = [secret.encode() for secret in settings.secrets]
        self._keys = KeyRing(engine)
        self._tokens = Tokens(settings)
        self._failures = Buckets(FAILURES_A_MINUTE, 60)
        self.rate = settings.requests_allowed and Buckets(*settings.requests_allowed)

    async def identify(self, sent: Sequence[tuple[bytes, bytes]], address: str | None) -> Principal:
        """Whose credential it is.

        Args:
            sent: the headers among `CREDENTIALS`, at least one.
            address: whom they come from.

        Raises:
            TwoCredentials: there are several.
            Unauthorized: it is not right.
            Forbidden: it is a key that may not be sent from there.
            TooManyRequests: too many were not right from there lately; this one was not looked at.
        """
        if len(sent) > 1:
            raise TwoCredentials(detail=f"Send one credential: in {SECRET_HEADER}, or in Authorization.")
        whence = _neighbourhood(address)
        if wait := self._failures.seconds_until_one(whence):
            raise TooManyRequests(detail="Too many wrong credentials came from your address.", retry_after=wait)
        try:
            return await self._principal(*sent[0], address)
        except Unauthorized:
            self._failures.take(whence)
            raise

    def spend(self, principal: Principal) -> Standing | None:
        """Count a request.

        Returns:
            How many more there may be; `None` if that is not limited.
        """
        if self.rate is None or principal is LOCAL:
            return None
        return self.rate.take(principal.actor)

    async def _principal(self, header: bytes, value: bytes, address: str | None) -> Principal:
        if header == b"authorization":
            scheme, _, credential = value.partition(b" ")
            if scheme.lower() != b"bearer":
                raise Unauthorized(detail="Send Authorization: Bearer, and an API key or a JWT.")
            credential = credential.strip()
            if credential.startswith(_KEY_PREFIX):
                return await self._keys.principal(credential, address)
            return await self._tokens.principal(credential)
        if self._is_secret(value):
            return SECRET
        if value.startswith(_KEY_PREFIX):
            return await self._keys.principal(value, address)
        raise Unauthorized(detail=f"The secret in {SECRET_HEADER} is not right.")

    def _is_secret(self, value: bytes) -> bool:
        # Each, however the first compares. Bytes: comparing text that is not ASCII would raise.
        return sum(hmac.compare_digest(value, secret) for secret in self._secrets) > 0


@functools.lru_cache
def _neighbourhood(address: str | None) -> str:
    """The address; of IPv6 the network, of which one caller has all addresses."""
    parsed = read_address(address)
    if parsed is None:
        return ""
    return str(IPv6Address(int(parsed) >> 64 << 64)) if isinstance(parsed, IPv6Address) else str(parsed)
