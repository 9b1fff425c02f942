"""Tokens: a token never chooses how it is checked, and what is not right in every part is not right."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import ValidationError
from tests.support.callers import JWT_SECRET, token

from app.access.principal import Principal, Scope
from app.access.tokens import LEEWAY_SECONDS, Tokens
from app.config import Settings
from app.errors import IssuerUnavailable, Unauthorized

USUAL = frozenset({Scope.READ, Scope.WRITE})


def tokens(**settings: Any) -> Tokens:
    return Tokens(Settings(_env_file=None, **settings))


def signed(claims: Any, secret: str = JWT_SECRET, alg: str = "HS256") -> str:
    return jwt.encode(claims, secret, alg)


def raw(header: Any, payload: Any) -> str:
    """A token as whoever attacks writes it: any JSON text, and no signature."""
    parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, payload)]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts) + "."


def soon() -> int:
    return int(time.time()) + 60


async def test_sub_is_the_owner_and_scope_narrows() -> None:
    check = tokens(jwt_secret=JWT_SECRET).principal
    assert await check(token("ada").encode()) == Principal("jwt:ada", "ada", USUAL)
    assert (await check(token("ada", scope="runs:read email").encode())).scopes == {Scope.READ}
    assert (await check(token("ada", scope="email").encode())).scopes == frozenset()
    one = await check(token("ada", scope="runs:read actions:echo actions:Nothing actions:").encode())
    assert (one.scopes, one.actions) == ({Scope.READ}, {"echo"})
    assert await check(token("ada", scope="admin").encode()) == Principal("jwt:ada", None, frozenset({Scope.ADMIN}))


async def test_clocks_may_differ_by_half_a_minute_and_not_more() -> None:
    check = tokens(jwt_secret=JWT_SECRET).principal
    now = int(time.time())
    assert (await check(token("ada", exp=now - LEEWAY_SECONDS + 10).encode())).owner == "ada"
    with pytest.raises(Unauthorized, match="expired"):
        await check(token("ada", exp=now - LEEWAY_SECONDS - 1).encode())
    with pytest.raises(Unauthorized):
        await check(token("ada", nbf=now + LEEWAY_SECONDS + 10).encode())


@pytest.mark.parametrize(
    "sent",
    [
        raw({"alg": "none", "typ": "JWT"}, {"sub": "ada", "exp": 2**31}),
        raw({"alg": "HS256"}, {"sub": "ada", "exp": 2**31}),
        raw("[" * 5000, {"sub": "ada"}),
        raw({"alg": {"a": 1}}, {"sub": "ada"}),
        signed({"sub": "ada", "exp": soon()}, secret="x" * 32),
        signed({"sub": "ada", "exp": soon()}, alg="HS512"),
        raw({"alg": "HS256", "kid": {"a": 1}}, {"sub": "ada", "exp": 2**31}),
        token("ada", exp=None),
        token("ada", exp="soon"),
        token("ada", exp=float("1e400")),
        token(""),
        token("a" * 256),
        token("ada\x00"),
        token("a\nb"),
        token("secret"),
        token("ada", scope=["admin"]),
        signed({"exp": soon()}),
        token("ada") + "x",
        token("ada").rsplit(".", 1)[0] + ".",
        "..",
        "a.b.c",
        "",
        "é.é.é",
        "x" * 100_000,
    ],
    ids=lambda _: "token",
)
async def test_what_is_not_right_is_401(sent: str) -> None:
    with pytest.raises(Unauthorized):
        await tokens(jwt_secret=JWT_SECRET).principal(sent.encode("latin-1"))


async def test_a_sub_that_is_no_text_is_401() -> None:
    with pytest.raises(Unauthorized):
        await tokens(jwt_secret=JWT_SECRET).principal(unchecked({"sub": 7, "exp": soon()}))


def unchecked(claims: dict[str, Any]) -> bytes:
    """Signed claims that the library would not sign."""
    return jwt.api_jws.encode(json.dumps(claims).encode(), JWT_SECRET, "HS256").encode()


@pytest.mark.parametrize(
    ("claims", "is_right"),
    [
        ({"aud": "runledger", "iss": "https://issuer"}, True),
        ({"aud": ["other", "runledger"], "iss": "https://issuer"}, True),
        ({"aud": "other", "iss": "https://issuer"}, False),
        ({"aud": "runledger", "iss": "https://evil"}, False),
        ({"iss": "https://issuer"}, False),
        ({"aud": "runledger"}, False),
    ],
)
async def test_audience_and_issuer_are_checked_where_they_are_set(claims: dict[str, Any], is_right: bool) -> None:
    strict = tokens(jwt_secret=JWT_SECRET, jwt_audience="runledger", jwt_issuer="https://issuer")
    sent = token("ada", **claims).encode()
    assert (await tokens(jwt_secret=JWT_SECRET).principal(sent)).owner == "ada"
    if is_right:
        assert (await strict.principal(sent)).owner == "ada"
    else:
        with pytest.raises(Unauthorized):
            await strict.principal(sent)


async def test_without_a_setting_no_token_is_right() -> None:
    with pytest.raises(Unauthorized):
        await tokens().principal(token("ada").encode())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jwt_secret": "x" * 31}, "JWT_SECRET must have 32 bytes"),
        ({"jwt_secret": "x" * 32, "jwks_url": "https://issuer/keys"}, "not both"),
        ({"jwks_url": "file:///etc/passwd"}, "pattern"),
        ({"roadmap_ai_secret_previous": "x" * 32}, "needs a ROADMAP_AI_SECRET"),
    ],
)
def test_settings_that_are_not_safe_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings(_env_file=None, **given)


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)


class Issuer:
    """Publishes keys on loopback, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.keys: Any = {
            "keys": [
                {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "rsa", "use": "sig", "alg": "RS256"},
                {**ECAlgorithm.to_jwk(CURVE.public_key(), as_dict=True), "kid": "ec", "use": "sig", "alg": "ES256"},
                {**RSAAlgorithm.to_jwk(SHORT.public_key(), as_dict=True), "kid": "short", "use": "sig"},
            ]
        }
        self.url = ""


@contextmanager
def published() -> Iterator[Issuer]:
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            body = issuer.keys if isinstance(issuer.keys, bytes) else json.dumps(issuer.keys).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_port}/keys"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with published() as issuer:
        yield issuer


async def test_keys_that_an_issuer_publishes_are_fetched_once(issuer: Issuer) -> None:
    check = tokens(jwks_url=issuer.url).principal
    for key, kid, alg in ((RSA, "rsa", "RS256"), (CURVE, "ec", "ES256"), (RSA, "rsa", "RS256")):
        sent = jwt.encode({"sub": "ada", "exp": soon()}, key, alg, headers={"kid": kid}).encode()
        assert (await check(sent)).owner == "ada"
    assert issuer.asked == 1


async def test_a_token_does_not_choose_how_it_is_checked(issuer: Issuer) -> None:
    check = tokens(jwks_url=issuer.url).principal
    claims = {"sub": "ada", "exp": soon()}
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    embedded = RSAAlgorithm.to_jwk(own.public_key(), as_dict=True)
    with published() as other:
        hostile = [
            # Signed with the public key, as if it were a secret.
            by_hand({"alg": "HS256", "kid": "rsa"}, claims, public),
            jwt.encode(claims, own, "RS256", headers={"kid": "rsa"}),
            jwt.encode(claims, own, "RS256", headers={"kid": "rsa", "jwk": embedded}),
            jwt.encode(claims, own, "RS256", headers={"kid": "rsa", "jku": other.url, "x5u": other.url}),
            jwt.encode(claims, RSA, "RS512", headers={"kid": "rsa"}),
            jwt.encode(claims, CURVE, "ES256", headers={"kid": "rsa"}),
            weak(claims),
            jwt.encode(claims, RSA, "RS256", headers={"kid": "../../dev/null"}),
            jwt.encode(claims, RSA, "RS256"),
            raw({"alg": "none", "kid": "rsa"}, claims),
            raw({"alg": "RS256", "kid": {"a": 1}}, claims),
        ]
        for sent in hostile:
            with pytest.raises(Unauthorized):
                await check(sent.encode())
        assert other.asked == 0
    # An unknown kid asks the issuer again, at most every half minute.
    assert issuer.asked == 1


def weak(claims: dict[str, Any]) -> str:
    """Signed with a key that is published, and too short."""
    with warnings.catch_warnings(action="ignore"):
        return jwt.encode(claims, SHORT, "RS256", headers={"kid": "short"})


def by_hand(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """HS256, with a secret that the library would refuse to take for one."""
    body = raw(header, claims).removesuffix(".")
    signature = hmac.new(secret, body.encode(), hashlib.sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


@pytest.mark.parametrize("answer", [b"no json", b'{"keys": []}', b'{"keys": [{"kty": "x"}]}'])
async def test_an_issuer_that_does_not_answer_is_not_the_caller_s_fault(issuer: Issuer, answer: bytes) -> None:
    sent = jwt.encode({"sub": "ada", "exp": soon()}, RSA, "RS256", headers={"kid": "rsa"}).encode()
    issuer.keys = answer
    with pytest.raises(IssuerUnavailable):
        await tokens(jwks_url=issuer.url).principal(sent)
    with pytest.raises(IssuerUnavailable):
        await tokens(jwks_url="http://127.0.0.1:1/keys").principal(sent)
