"""Health tells the truth: alive is not ready."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
from sqlalchemy import URL
from tests.support.eventually import eventually
from tests.support.serving import open_api
from tests.support.workshop import Workshop, open_workshop

from app.config import Settings
from app.errors import ConfigurationError
from app.main import create_app
from app.outbound.postgres.database import make_engine


async def test_it_is_alive_ready_and_healthy(api: httpx2.AsyncClient) -> None:
    assert (await api.get("/livez")).json() == {"status": "alive"}
    nearly_nothing = pytest.approx(0, abs=0.01)
    assert (await api.get("/readyz")).json() == {
        "status": "ready",
        "notify_queue_usage": nearly_nothing,
        "warnings": [],
    }
    assert (await api.get("/health")).json() == {"status": "healthy"}


async def test_by_its_other_names_readiness_is_the_same(api: httpx2.AsyncClient) -> None:
    ready = (await api.get("/readyz")).json()
    for path in ("/healthz", "/startupz"):
        assert (await api.get(path)).json() == ready | {"notify_queue_usage": pytest.approx(0, abs=0.01)}


@pytest.mark.parametrize("query", ["verbose", "verbose=", "verbose=true"])
async def test_who_asks_for_every_check_gets_a_line_each(api: httpx2.AsyncClient, query: str) -> None:
    alive = await api.get(f"/livez?{query}")
    assert alive.headers["content-type"] == "text/plain; charset=utf-8"
    assert alive.text == "[+]ping ok\nlivez check passed\n"
    for probe in ("readyz", "healthz", "startupz"):
        ready = await api.get(f"/{probe}?{query}")
        checks = "".join(f"[+]{check} ok\n" for check in ("database", "schema", "notify-queue", "listen"))
        assert (ready.status_code, ready.text) == (200, f"{checks}{probe} check passed\n")


@pytest.mark.bell("about whether it is heard")
async def test_who_hears_no_bell_says_so_until_he_does(
    api: httpx2.AsyncClient, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.listener.SILENCE_SECONDS", 0.2)
    listener = "pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    await eventually(lambda: workshop.fetch(f"SELECT {listener}"))

    async def warned() -> bool:
        return "hears no NOTIFY" in " ".join((await api.get("/readyz")).json()["warnings"])

    async def silent() -> bool:
        return not await warned()

    async def told() -> bool:
        return "[+]listen ok, but: This process hears no NOTIFY" in (await api.get("/readyz?verbose")).text

    assert await silent()
    # No new connections; those that are there stay.
    allow = "UPDATE pg_database SET datallowconn = :allowed WHERE datname = current_database()"
    await workshop.execute(allow, allowed=False)
    await workshop.execute(f"SELECT pg_terminate_backend(pid) FROM (SELECT {listener}) AS listening")
    await eventually(warned)
    assert await told()
    await workshop.execute(allow, allowed=True)
    await eventually(silent)


@pytest.fixture
async def api_without_database(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    gone = settings.model_copy(update={"database_url": "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"})
    async for client in served(gone):
        yield client


@pytest.fixture
async def api_on_empty_database(settings: Settings, empty_database: URL) -> AsyncIterator[httpx2.AsyncClient]:
    empty = settings.model_copy(update={"database_url": empty_database.render_as_string(hide_password=False)})
    async for client in served(empty):
        yield client


async def test_without_a_database_it_is_alive_and_not_ready(api_without_database: httpx2.AsyncClient) -> None:
    assert (await api_without_database.get("/livez")).status_code == 200
    for request in (
        ("GET", "/readyz"),
        ("GET", "/healthz"),
        ("GET", "/startupz"),
        ("GET", "/health"),
        ("GET", "/runs"),
        ("GET", "/runs/run_20200101T000000Z_00000000"),
        ("POST", "/runs"),
        ("POST", "/actions/run"),
    ):
        answer = await api_without_database.request(*request, json={"action": "echo", "params": {"message": "x"}})
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/database-unavailable"), request
        assert answer.headers["retry-after"] == "1"
        assert "nobody" not in answer.text


async def test_the_check_that_fails_is_named_and_nobody_s_address_is(api_without_database: httpx2.AsyncClient) -> None:
    assert (await api_without_database.get("/livez?verbose")).status_code == 200
    answer = await api_without_database.get("/readyz?verbose")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    failed, end = answer.text.splitlines()
    assert failed.startswith("[-]database failed: PostgreSQL does not answer.")
    assert end == "readyz check failed"
    assert "127.0.0.1" not in answer.text
    assert "nobody" not in answer.text


async def test_what_holds_beside_what_fails_is_told_too(api_on_empty_database: httpx2.AsyncClient) -> None:
    answer = await api_on_empty_database.get("/startupz?verbose")
    assert answer.status_code == 503
    database, schema, *_, end = answer.text.splitlines()
    assert database == "[+]database ok"
    assert schema.startswith("[-]schema failed: The database lacks app_")
    assert end == "startupz check failed"


async def test_a_schema_that_is_behind_is_said(api_on_empty_database: httpx2.AsyncClient) -> None:
    ready = await api_on_empty_database.get("/readyz")
    assert (ready.status_code, ready.json()["type"]) == (503, "/problems/database-behind")
    assert "lacks app_" in ready.json()["detail"]
    assert (await api_on_empty_database.get("/runs")).json()["type"] == "/problems/database-behind"


async def test_the_documentation_needs_nothing_from_elsewhere(api: httpx2.AsyncClient) -> None:
    page = (await api.get("/docs")).text
    assert "http://" not in page
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert (await api.get(f"/static-offline-docs/{asset}")).status_code == 200


async def test_who_opens_the_url_finds_the_documentation(api: httpx2.AsyncClient) -> None:
    answer = await api.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_in_production_there_is_no_reference_to_try_things_from(workshop: Workshop) -> None:
    settings = workshop.settings.model_copy(update={"environment": "production"})
    app = create_app(settings, workshop.queue, workshop.action)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1") as client,
    ):
        for path in (
            "/",
            "/docs",
            "/docs/oauth2-redirect",
            "/openapi.json",
            "/redoc",
            "/static-offline-docs/swagger-ui.css",
        ):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.get("/problems/run-final")).status_code == 200
        assert (await client.get("/livez")).status_code == 200


async def test_the_page_of_a_problem_type_explains_it(api: httpx2.AsyncClient) -> None:
    answer = await api.get("/problems/run-final", headers={"accept": "text/html"})
    assert "already ended" in answer.text


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"host": "127.0.0.1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "0.0.0.0", "allow_anonymous": True}, False),
        ({"host": "0.0.0.0", "roadmap_ai_secret": "s" * 32}, False),
        ({"host": "0.0.0.0", "jwt_secret": "s" * 32}, False),
        ({"host": "0.0.0.0", "jwks_url": "https://issuer.example/keys"}, False),
    ],
)
def test_it_does_not_serve_strangers_by_accident(given: dict[str, object], refused: bool) -> None:
    settings = Settings(_env_file=None, **given)
    if refused:
        with pytest.raises(ConfigurationError, match="Set ROADMAP_AI_SECRET, JWT_SECRET or JWKS_URL, or ALLOW_ANON"):
            create_app(settings)
    else:
        create_app(settings)


async def test_with_a_secret_configured_strangers_are_turned_away(workshop: Workshop) -> None:
    settings = workshop.settings.model_copy(
        update={"roadmap_ai_secret": Settings(roadmap_ai_secret="right").roadmap_ai_secret}
    )
    app = create_app(settings, workshop.queue, workshop.action)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://x") as client,
    ):
        assert (await client.get("/runs")).status_code == 401
        assert (await client.get("/runs", headers={"x-roadmap-ai-secret": "dev-secret"})).status_code == 401
        assert (await client.get("/runs", headers={"x-roadmap-ai-secret": "right"})).status_code == 200
        assert (await client.get("/livez")).status_code == 200


async def served(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    engine = make_engine(settings)
    async with open_workshop(engine, settings) as workshop:

        @workshop.action()
        async def echo(message: str) -> str:
            return message

        async with open_api(workshop, settings) as app:
            transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                yield client
    await engine.dispose()
