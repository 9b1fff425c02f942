"""JSON Web Tokens: signed with a secret (HS256), or by an issuer who publishes the keys (RS256, ES256)."""

from __future__ import annotations

import asyncio
from typing import Any

import jwt
from jwt import PyJWK, PyJWKClient

from app.access.principal import Principal, Scope, read_scopes
from app.config import Settings
from app.errors import IssuerUnavailable, Unauthorized

LEEWAY_SECONDS = 30
LONGEST_TOKEN = 8192
LONGEST_OWNER = 255
RESERVED_OWNERS = {"secret"}
"""Whoever has the shared secret is this owner: no user name may become it."""
FETCH_SECONDS = 5
_UNSPOKEN = frozenset({Scope.READ, Scope.WRITE})
# What decoding something hostile may raise, beside the library's own errors.
_UNREADABLE = (jwt.PyJWTError, ValueError, OverflowError, RecursionError)


class Tokens:
    """Checks tokens. The algorithms are those of the settings, never what a token asks for; nor does a token say where
    its key is: `jku`, `x5u` and `jwk` are not looked at, and `kid` is only looked up.
    """

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else None
        self._issuer_keys = PyJWKClient(settings.jwks_url, timeout=FETCH_SECONDS) if settings.jwks_url else None
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer

    async def principal(self, sent: bytes) -> Principal:
        """Whom the token is about.

        Raises:
            Unauthorized: it is not right, not in force, or says nothing that this API understands.
            IssuerUnavailable: the keys of the issuer cannot be read now.
        """
        if len(sent) > LONGEST_TOKEN or (self._secret is None and self._issuer_keys is None):
            raise Unauthorized(detail="What was sent as Bearer is no key of this API, and no token that it takes.")
        try:
            claims = self._verified(sent, await self._key(sent))
        except jwt.ExpiredSignatureError:
            raise Unauthorized(detail="The token has expired.") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthorized(detail=f"The token lacks {error.claim}.") from None
        except _UNREADABLE:
            raise Unauthorized(detail="The token is not right.") from None
        scopes, actions = _scopes(claims)
        subject = _subject(claims)
        return Principal(f"jwt:{subject}", None if Scope.ADMIN in scopes else subject, scopes, actions)

    async def _key(self, sent: bytes) -> str | PyJWK:
        if self._secret is not None:
            return self._secret
        assert self._issuer_keys is not None
        kid = jwt.get_unverified_header(sent).get("kid")
        if not isinstance(kid, str):
            raise Unauthorized(detail="The token does not say which key signed it (kid).")
        try:
            # It may ask the issuer; keys that it has are kept for five minutes.
            return await asyncio.to_thread(self._issuer_keys.get_signing_key, kid)
        except (jwt.PyJWKClientConnectionError, jwt.PyJWKSetError, ValueError):
            raise IssuerUnavailable(detail="Whoever publishes the keys of tokens does not answer.") from None

    def _verified(self, sent: bytes, key: str | PyJWK) -> dict[str, Any]:
        return jwt.decode(
            sent,
            key,
            algorithms=["HS256"] if self._secret is not None else ["RS256", "ES256"],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_SECONDS,
            options={
                "require": ["exp", "sub", *(["aud"] if self._audience else []), *(["iss"] if self._issuer else [])],
                "verify_aud": self._audience is not None,
                "enforce_minimum_key_length": True,
            },
        )


def _subject(claims: dict[str, Any]) -> str:
    subject: str = claims["sub"]
    if not 0 < len(subject) <= LONGEST_OWNER or not subject.isprintable() or subject in RESERVED_OWNERS:
        raise Unauthorized(detail="The token's sub cannot be the name of an owner.")
    return subject


def _scopes(claims: dict[str, Any]) -> tuple[frozenset[Scope], frozenset[str]]:
    """What the token allows: of its `scope`, the words that mean something here; without one, all but `admin`."""
    said = claims.get("scope")
    if said is None:
        return _UNSPOKEN, frozenset()
    if not isinstance(said, str):
        raise Unauthorized(detail="The token's scope must be words, separated by spaces.")
    return read_scopes(said.split())
