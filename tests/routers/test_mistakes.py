"""Our own mistakes: the answer has an id, the log has the cause under it, and nothing else is told."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.responses import StreamingResponse
from tests.support.workshop import Workshop

from app.main import create_app
from app.routers.problems import AnswerBroken

SECRET = "postgresql://user:s3cr3t@host"


@pytest.fixture
async def broken(workshop: Workshop) -> AsyncIterator[httpx2.AsyncClient]:
    """The API with routes that have mistakes; what leaves the app is raised here, as it would be logged by a server."""
    app = create_app(workshop.settings, workshop.queue, workshop.action)

    @app.get("/raises")
    async def raises() -> None:
        raise ValueError(SECRET)

    @app.get("/answers-otherwise")
    async def answers_otherwise() -> int:
        return SECRET  # pyright: ignore[reportReturnType] - the mistake

    @app.get("/stops")
    async def stops() -> StreamingResponse:
        async def lines() -> Any:
            yield "one\n"
            raise ValueError(SECRET)

        return StreamingResponse(lines())

    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client


@pytest.mark.parametrize("path", ["/raises", "/answers-otherwise"])
async def test_a_500_has_an_id_and_the_log_the_cause_under_it(
    broken: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    answer = await broken.get(path)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["type"]) == (500, "/problems/internal")
    assert set(problem) == {"type", "title", "status", "detail", "id"}
    assert "s3cr3t" not in answer.text
    (logged,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert problem["id"] in logged.getMessage()
    assert path in logged.getMessage()
    assert logged.exc_info


async def test_an_answer_that_breaks_off_is_logged_under_an_id(
    broken: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AnswerBroken) as raised:
        await broken.get("/stops")
    assert "s3cr3t" not in str(raised.value)
    assert str(raised.value) in caplog.text


async def test_the_page_of_a_500_says_what_to_do(broken: httpx2.AsyncClient) -> None:
    page = await broken.get("/problems/internal", headers={"accept": "text/html"})
    assert "the log has the cause" in page.text
    assert page.status_code == 200
