"""The stubs' server makes the trouble that it is asked for, and tells what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.outbound.stubs import RETRY_AFTER_SECONDS, Stubs


async def repeat(request: Request) -> Response:
    return JSONResponse({"said": (await request.body()).decode()})


@pytest.fixture
async def parrot() -> AsyncIterator[httpx2.AsyncClient]:
    stubs = Stubs({"parrot": Starlette(routes=[Route("/say", repeat, methods=["POST"])])})
    async with httpx2.AsyncClient(base_url=stubs.url("parrot")) as client:
        yield client
    await stubs.aclose()


async def test_a_stub_answers_over_a_socket(parrot: httpx2.AsyncClient) -> None:
    assert (await parrot.post("/say", content="hello")).json() == {"said": "hello"}


async def test_trouble_comes_when_it_is_asked_for(parrot: httpx2.AsyncClient) -> None:
    limited = await parrot.post("/say", content="now [stub:429]")
    assert (limited.status_code, limited.headers["retry-after"]) == (429, str(RETRY_AFTER_SECONDS))
    assert (await parrot.post("/say", content="now [stub:500]")).status_code == 500
    assert (await parrot.post("/say", content="now [stub:malformed]")).text == '{"cut'
    with pytest.raises(httpx2.ReadTimeout):
        await parrot.post("/say", content="now [stub:slow]", timeout=0.2)


async def test_trouble_may_pass(parrot: httpx2.AsyncClient) -> None:
    answers = [(await parrot.post("/say", content="[stub:500 x2]")).status_code for _ in range(4)]
    assert answers == [500, 500, 200, 200]


async def test_trouble_may_be_meant_for_one_vendor(parrot: httpx2.AsyncClient) -> None:
    said = ("[stub:owl:500]", "[stub:parrot:500]", "[stub:owl:500] [stub:parrot:429]")
    assert [(await parrot.post("/say", content=each)).status_code for each in said] == [200, 500, 429]


async def test_calls_are_counted(parrot: httpx2.AsyncClient) -> None:
    await parrot.post("/say", content="hello")
    await parrot.post("/say", content="[stub:500]")
    calls = await parrot.get(f"http://{parrot.base_url.host}:{parrot.base_url.port}/calls")
    assert calls.json() == [
        {"vendor": "parrot", "path": "/say", "trouble": None},
        {"vendor": "parrot", "path": "/say", "trouble": "500"},
    ]


async def test_stubs_may_be_served_by_another_process(parrot: httpx2.AsyncClient) -> None:
    served = Stubs({}, served_at=f"http://{parrot.base_url.host}:{parrot.base_url.port}")
    assert (await parrot.post(served.url("parrot") + "/say", content="hello")).is_success
