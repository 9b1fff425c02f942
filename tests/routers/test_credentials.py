"""One credential, checked whenever it is sent; who guesses is slowed, who asks too often told when to come again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
from tests.support import callers
from tests.support.callers import Caller, bearer, guarded, secret, token
from tests.support.serving import open_api
from tests.support.workshop import Workshop


@contextlib.asynccontextmanager
async def serving(workshop: Workshop, **settings: object) -> AsyncIterator[Caller]:
    async with open_api(workshop, guarded(workshop.settings, **settings)) as app:
        yield Caller(app)


@pytest.fixture
async def call(workshop: Workshop) -> AsyncIterator[Caller]:
    async with serving(workshop) as caller:
        yield caller


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Bearer {token('ada')}"), ("authorization", f"Bearer {token('ada')}")],
        [("x-roadmap-ai-secret", callers.SECRET), ("x-roadmap-ai-secret", callers.SECRET)],
        [("x-roadmap-ai-secret", callers.SECRET), ("authorization", f"Bearer {token('ada')}")],
    ],
)
async def test_two_credentials_are_400(call: Caller, headers: list[tuple[str, str]]) -> None:
    answer = await call("GET", "/runs", headers)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/two-credentials")


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Basic YTpi"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {callers.SECRET}"},
        {"authorization": ""},
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"x-roadmap-ai-secret", "é".encode("latin-1"))],
        secret(""),
        secret("dev-secret"),
        secret(token("ada")),
        secret(callers.SECRET + "x"),
        secret(callers.SECRET[:-1]),
    ],
)
async def test_a_credential_that_is_not_right_is_401(call: Caller, headers: object) -> None:
    answer = await call("GET", "/runs", headers)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("name", ["api_key", "access_token", "X-ROADMAP-AI-SECRET", "authorization"])
async def test_a_credential_in_the_query_is_none(call: Caller, name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert (await call("GET", "/runs", params={name: callers.SECRET})).status_code == 401
    assert callers.SECRET not in caplog.text


async def test_the_scheme_is_written_as_one_likes(call: Caller) -> None:
    assert (await call("GET", "/runs", {"authorization": f"bEARER {token('ada')}"})).status_code == 200


async def test_who_guesses_is_slowed_and_nobody_else(call: Caller) -> None:
    address = "198.51.100.7"
    answers = [(await call("GET", "/runs", secret("wrong"), address=address)).status_code for _ in range(12)]
    assert answers == [401] * 10 + [429] * 2
    # A guess that is right is not looked at either.
    slowed = await call("GET", "/runs", secret(), address=address)
    assert (slowed.status_code, slowed.json()["type"]) == (429, "/problems/rate-limited")
    assert 1 <= int(slowed.headers["retry-after"]) <= 6
    assert (await call("GET", "/livez", address=address)).status_code == 200
    assert (await call("GET", "/runs", secret())).status_code == 200


async def test_all_addresses_of_an_ipv6_network_are_one_guesser(call: Caller) -> None:
    answers = [(await call("GET", "/runs", secret("wrong"), address=f"2001:db8::{n:x}")).status_code for n in range(12)]
    assert answers == [401] * 10 + [429] * 2
    assert (await call("GET", "/runs", secret(), address="2001:db8:0:1::1")).status_code == 200


async def test_an_ipv4_address_in_the_place_of_ipv6_is_a_guesser_of_its_own(call: Caller) -> None:
    for n in range(12):
        await call("GET", "/runs", secret("wrong"), address=f"::ffff:198.51.100.{n}")
    assert (await call("GET", "/runs", secret(), address="::ffff:198.51.100.99")).status_code == 200


async def test_a_principal_is_told_how_much_is_left_and_then_when_to_come_again(workshop: Workshop) -> None:
    async with serving(workshop, rate_limit="2/hour") as call:
        first, second, third = [await call("GET", "/runs", bearer(token("ada"))) for _ in range(3)]
        assert first.headers["ratelimit-policy"] == '"default";q=2;w=3600'
        assert first.headers["ratelimit"] == '"default";r=1;t=1800'
        assert second.headers["ratelimit"].startswith('"default";r=0;t=')
        assert (third.status_code, third.json()["type"]) == (429, "/problems/rate-limited")
        assert 1790 <= int(third.headers["retry-after"]) <= 1800
        assert third.headers["ratelimit"] == f'"default";r=0;t={third.headers["retry-after"]}'
        assert third.headers["ratelimit-policy"] == first.headers["ratelimit-policy"]
        assert (await call("GET", "/runs", bearer(token("bob")))).status_code == 200


async def test_without_a_limit_nobody_is_told_one(workshop: Workshop) -> None:
    async with serving(workshop, rate_limit="off") as call:
        answer = await call("GET", "/runs", secret())
        assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)
