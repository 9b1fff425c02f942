"""Default deny: every route of the app, and everybody who may call it, against a table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from tests.support import callers
from tests.support.callers import Caller, bearer, guarded, token
from tests.support.serving import open_api
from tests.support.workshop import Workshop

from app.access import keys
from app.access.principal import Scope
from app.main import create_app
from app.routers.strict import StrictRoute, access_of

OPEN = {
    "/", "/livez", "/readyz", "/healthz", "/startupz", "/health", "/docs", "/docs/oauth2-redirect",
    "/static-offline-docs", "/openapi.json", "/problems/{slug}", "/files/{key:any}",
}  # fmt: skip
"""What everybody may see; of files, with the signature in their URL."""

IN = "let in"
EACH = ("sees", "looks at", "performs", "repeats", "submits", "changes", "administers")
"""What a route is for: one that performs an action is also for who may submit runs of that action only; so is one that
repeats a run, if he may look at it. Who looks at a run or an endpoint, repeats or changes it, must own it."""

TABLE: dict[str, tuple[Any, ...]] = {
    "nobody":          (401, 401, 401, 401, 401, 401, 401),
    "the owner":       (IN, IN, IN, IN, IN, IN, 403),
    "the owner's key": (IN, IN, IN, IN, IN, IN, 403),
    "the same key in the secret's header": (IN, IN, IN, IN, IN, IN, 403),
    "another":         (IN, 404, IN, 404, IN, 404, 403),
    "another's key":   (IN, 404, IN, 404, IN, 404, 403),
    "the machines":    (IN, 404, IN, 404, IN, 404, 403),
    "the machines with the previous secret": (IN, 404, IN, 404, IN, 404, 403),
    "a key from its network": (IN, IN, IN, IN, IN, IN, 403),
    "a key from a foreign network": (403, 403, 403, 403, 403, 403, 403),
    "an administrator's key from a foreign network": (403, 403, 403, 403, 403, 403, 403),
    "a reader":        (IN, IN, 403, 403, 403, 403, 403),
    "a reader's key":  (IN, IN, 403, 403, 403, 403, 403),
    "a key for an action": (IN, IN, IN, IN, 403, 403, 403),
    "a key for another action": (IN, IN, IN, 403, 403, 403, 403),
    "a token for an action": (403, 403, IN, 403, 403, 403, 403),
    "an administrator": (IN, IN, IN, IN, IN, IN, IN),
    "an administrator's key": (IN, IN, IN, IN, IN, IN, IN),
    "a revoked key":   (401, 401, 401, 401, 401, 401, 401),
    "an expired key":  (401, 401, 401, 401, 401, 401, 401),
    "a wrong secret":  (401, 401, 401, 401, 401, 401, 401),
    "an expired token": (401, 401, 401, 401, 401, 401, 401),
}  # fmt: skip

ROUTES = {
    "GET /runs": "sees",
    "POST /runs": "performs",
    "POST /runs/batch": "performs",
    "POST /runs/bulk": "submits",
    "GET /runs/{run_id}": "looks at",
    "GET /runs/{run_id}/events": "looks at",
    "POST /runs/{run_id}/cancel": "changes",
    "POST /runs/{run_id}/retry": "changes",
    "POST /runs/{run_id}/replay": "repeats",
    "POST /runs/{run_id}/signals/{name}": "changes",
    "GET /runs/{run_id}/result": "looks at",
    "GET /runs/{run_id}/why": "looks at",
    "GET /events": "sees",
    "GET /actions": "sees",
    "GET /actions/{name}": "sees",
    "POST /actions/run": "performs",
    "GET /actions/run/{run_id}": "looks at",
    "GET /jobs": "sees",
    "POST /jobs": "performs",
    "GET /jobs/{job_id}": "looks at",
    "POST /tasks": "performs",
    "GET /tasks/{task_id}": "looks at",
    "GET /tasks/{task_id}/stream": "looks at",
    "GET /audit": "administers",
    "GET /metrics": "administers",
    "GET /queues": "administers",
    "POST /queues/{name}/pause": "administers",
    "POST /queues/{name}/resume": "administers",
    "GET /workers": "administers",
    "GET /schedules": "administers",
    "POST /schedules": "administers",
    "GET /schedules/{name}": "administers",
    "DELETE /schedules/{name}": "administers",
    "POST /schedules/{name}/run": "administers",
    "POST /schedules/{name}/pause": "administers",
    "POST /schedules/{name}/resume": "administers",
    "GET /dead-letters": "administers",
    "POST /dead-letters/{fingerprint}/retry": "administers",
    "POST /dead-letters/{fingerprint}/discard": "administers",
    "GET /adventures": "sees",
    "POST /adventures": "submits",
    "GET /adventures/{adventure_id}": "looks at",
    "POST /adventures/{adventure_id}/decisions": "changes",
    "POST /files": "submits",
    "GET /webhooks": "sees",
    "POST /webhooks": "submits",
    "GET /webhooks/{webhook_id}": "looks at",
    "DELETE /webhooks/{webhook_id}": "changes",
    "POST /webhooks/{webhook_id}/rotate-secret": "changes",
    "POST /webhooks/{webhook_id}/enable": "changes",
    "GET /webhooks/{webhook_id}/deliveries": "looks at",
    "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": "changes",
}
"""A new route is written in here: what is it for?"""

NOTHING_THERE = ("{delivery_id}", "{fingerprint}", "/schedules/{name}", "/decisions")
"""Of these there is none to be found, by whoever may look."""


@pytest.fixture
async def app(workshop: Workshop) -> AsyncIterator[FastAPI]:
    @workshop.action()
    async def echo(message: str) -> str:
        return message

    @workshop.action("generate_adventure_entry")
    async def generate(adventure_id: str, entry_id: str, user_id: str | None) -> None: ...

    async with open_api(workshop, guarded(workshop.settings)) as app:
        yield app


@pytest.fixture
async def everybody(workshop: Workshop) -> dict[str, dict[str, str]]:
    """The headers of each."""
    engine = workshop.engine
    revoked, expired = await callers.key(engine, "ada"), await callers.key(engine, "ada")
    await keys.revoke(engine, keys.id_of(revoked.encode()) or "")
    await workshop.execute("UPDATE api_keys SET expires_at = now() WHERE id = :id", id=keys.id_of(expired.encode()))
    own = await callers.key(engine, "ada")
    return {
        "nobody": {},
        "the owner": bearer(token("ada")),
        "the owner's key": bearer(own),
        "the same key in the secret's header": callers.secret(own),
        "another": bearer(token("bob")),
        "another's key": bearer(await callers.key(engine, "bob")),
        "the machines": callers.secret(),
        "the machines with the previous secret": callers.secret(callers.PREVIOUS),
        "a key from its network": bearer(await callers.key(engine, "ada", networks=["203.0.0.0/16"])),
        "a key from a foreign network": bearer(await callers.key(engine, "ada", networks=["192.0.2.0/24"])),
        "an administrator's key from a foreign network": callers.secret(
            await callers.key(engine, None, Scope.ADMIN, networks=["192.0.2.0/24"])
        ),
        "a reader": bearer(token("ada", scope="runs:read openid")),
        "a reader's key": bearer(await callers.key(engine, "ada", Scope.READ)),
        "a key for an action": bearer(await callers.key(engine, "ada", Scope.READ, "actions:echo")),
        "a key for another action": bearer(await callers.key(engine, "ada", Scope.READ, "actions:other")),
        "a token for an action": bearer(token("ada", scope="actions:echo")),
        "an administrator": bearer(token("root", scope="admin")),
        "an administrator's key": bearer(await callers.key(engine, None, Scope.ADMIN)),
        "a revoked key": bearer(revoked),
        "an expired key": bearer(expired),
        "a wrong secret": callers.secret("dev-secret"),
        "an expired token": bearer(token("ada", exp=1)),
    }


def guarded_routes(app: FastAPI) -> list[tuple[str, str, APIRoute]]:
    """Method, path and route of everything that is not open."""
    return [
        (method, context.path, context.original_route)
        for context in iter_route_contexts(app.routes)
        if context.path not in OPEN
        for method in sorted(context.methods or {"*"})
    ]


def unguarded(app: FastAPI) -> list[str]:
    """What asks nobody who he is, or only after it has read what he sent."""
    return [
        f"{method} {path}"
        for method, path, route in guarded_routes(app)
        if not isinstance(route, StrictRoute) or access_of(route.dependant) is None
    ]


def test_every_route_asks_who_calls_or_is_open_on_purpose(app: FastAPI) -> None:
    assert unguarded(app) == []
    assert {context.path for context in iter_route_contexts(app.routes)} >= OPEN


def test_a_route_that_asks_nobody_is_found(workshop: Workshop) -> None:
    app = create_app(workshop.settings, workshop.queue, workshop.action)
    router = APIRouter(route_class=StrictRoute)
    router.add_api_route("/forgotten", lambda: None, methods=["POST"])
    app.include_router(router)
    assert unguarded(app) == ["POST /forgotten"]


def test_the_table_knows_every_route(app: FastAPI) -> None:
    assert {f"{method} {path}" for method, path, _ in guarded_routes(app)} == set(ROUTES)


async def test_everybody_gets_from_every_route_what_the_table_says(
    app: FastAPI, everybody: dict[str, dict[str, str]], workshop: Workshop
) -> None:
    assert set(everybody) == set(TABLE)
    call = Caller(app)
    body = {"action": "echo", "params": {"message": "x"}}
    run_id = (await call("POST", "/runs", everybody["the owner"], json=body)).json()["id"]
    await workshop.drain()
    # A stream ends when it has told what there is.
    app.state.services.stopping.set()

    endpoint = "none"
    adventure_id = await begin_adventure(call, everybody)

    async def place(path: str) -> str:
        """The path of something that is the owner's; of another endpoint, once one was deleted."""
        nonlocal endpoint
        owner = everybody["the owner"]
        if "{webhook_id}" in path and (await call("GET", f"/webhooks/{endpoint}", owner)).status_code != 200:
            made = await call("POST", "/webhooks", owner, json={"url": "https://example.com/hook"})
            endpoint = made.json()["id"]
        return path.format(
            run_id=run_id, job_id=run_id, task_id=run_id, name="echo", fingerprint="none",
            webhook_id=endpoint, delivery_id="none", adventure_id=adventure_id,
        )  # fmt: skip

    wrong = []
    for route, purpose in ROUTES.items():
        method, path = route.split()
        for who, headers in everybody.items():
            expected = TABLE[who][EACH.index(purpose)]
            body = {"choice_id": str(UUID(int=1))} if "decisions" in path else None
            answer = await call(method, await place(path), headers, json=body)
            there_is_none = any(part in path for part in NOTHING_THERE)
            refused = answer.status_code in ((401, 403) if there_is_none else (401, 403, 404))
            if refused if expected == IN else answer.status_code != expected:
                wrong.append(f"{who}: {route} → {answer.status_code}, not {expected}")
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer"), route
            assert answer.status_code < 500, route
    assert wrong == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/runs", {"action": "echo", "params": {"message": "x"}}),
        ("/actions/run", {"action": "echo", "params": {"message": "x"}}),
        ("/tasks", {"type": "echo", "payload": {"message": "x"}}),
        ("/jobs", {"payload": {"task": "echo", "message": "x"}}),
    ],
)
async def test_who_may_submit_runs_of_one_action_submits_no_other(
    app: FastAPI, workshop: Workshop, path: str, body: dict[str, Any]
) -> None:
    call = Caller(app)
    for named, status in (("echo", 202), ("other", 403), ("ech", 403)):
        key = bearer(await callers.key(workshop.engine, "ada", f"actions:{named}"))
        answer = await call("POST", path, key, json=body)
        assert answer.status_code == status, answer.text
    assert await workshop.value("SELECT count(*) FROM action_runs") == 1
    # Nor is it told which others there are.
    unknown = {name: "nothing" if value == "echo" else value for name, value in body.items()}
    if "payload" not in body:
        assert (await call("POST", path, key, json=unknown)).status_code == 403


async def test_of_a_batch_who_may_submit_runs_of_one_action_submits_those(app: FastAPI, workshop: Workshop) -> None:
    call = Caller(app)
    batch = [
        {"action": "echo", "params": {"message": "x"}},
        {"action": "generate_adventure_entry"},
        {"action": "nothing"},
        {"action": "echo", "params": {"message": 7}},
    ]
    key = bearer(await callers.key(workshop.engine, "ada", "actions:echo"))
    answer = await call("POST", "/runs/batch", key, json={"runs": batch})
    first, *others = answer.json()["items"]
    assert (answer.status_code, set(first)) == (202, {"id"})
    assert [other["error"]["status"] for other in others] == [403, 403, 422]
    # Nor is it told which others there are.
    assert others[0] == others[1]
    assert await workshop.value("SELECT array_agg(action) FROM action_runs") == ["echo"]


async def test_who_may_submit_runs_of_one_action_repeats_those_he_may_look_at(
    app: FastAPI, workshop: Workshop, everybody: dict[str, dict[str, str]]
) -> None:
    call = Caller(app)
    body = {"action": "echo", "params": {"message": "x"}}
    run_id = (await call("POST", "/runs", everybody["the owner"], json=body)).json()["id"]
    for who, status in (
        ("a key for an action", 202),
        ("a key for another action", 403),
        ("a token for an action", 403),
    ):
        answer = await call("POST", f"/runs/{run_id}/replay", everybody[who], json={})
        assert answer.status_code == status, (who, answer.text)
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE replay_of = :id", id=run_id) == 1
    # To whom cannot look, a run that there is is like one that there is not.
    told = [
        (await call("POST", f"/runs/{id_}/replay", everybody["a token for an action"], json={})).json()["detail"]
        for id_ in (run_id, "run_20200101T000000Z_00000000")
    ]
    assert told[0] == told[1]


async def begin_adventure(call: Caller, everybody: dict[str, dict[str, str]]) -> str:
    languages = {"language": "fr", "native_language": "en"}
    return (await call("POST", "/adventures", everybody["the owner"], json=languages)).json()["id"]


async def test_another_s_run_and_no_run_are_told_apart_by_nobody(
    app: FastAPI, everybody: dict[str, dict[str, str]], workshop: Workshop
) -> None:
    call = Caller(app)
    body = {"action": "echo", "params": {"message": "x"}}
    run_id = (await call("POST", "/runs", everybody["the owner"], json=body)).json()["id"]
    made = await call("POST", "/webhooks", everybody["the owner"], json={"url": "https://example.com/hook"})
    endpoint = made.json()["id"]
    adventure = await begin_adventure(call, everybody)
    unknown = endpoint[:-4] + ("aaaa" if not endpoint.endswith("aaaa") else "bbbb")
    for route in (route for route, purpose in ROUTES.items() if purpose in ("looks at", "repeats", "changes")):
        method, path = route.split()
        answers = [
            await call(
                method,
                path.format(
                    run_id=run,
                    job_id=run,
                    task_id=run,
                    name="x",
                    webhook_id=hook,
                    delivery_id="none",
                    adventure_id=story,
                ),
                everybody["another"],
                json={"choice_id": str(UUID(int=1))} if "decisions" in path else None,
            )
            for run, hook, story in (
                (run_id, endpoint, adventure),
                (run_id[:-1] + ("0" if run_id[-1] != "0" else "1"), unknown, str(UUID(int=0))),
            )
        ]
        told = [{**answer.json(), "instance": None} for answer in answers]
        assert told[0] == told[1], route
        same = {"content-length": "", "ratelimit": ""}
        assert dict(answers[0].headers) | same == dict(answers[1].headers) | same
    assert (await call("GET", "/runs", everybody["another"])).json()["items"] == []
    assert [run["id"] for run in (await call("GET", "/runs?action=echo", everybody["a reader"])).json()["items"]] == [
        run_id
    ]
    assert (await workshop.get(run_id)).state == "queued"


async def test_who_may_not_call_is_told_before_the_body_is_read(app: FastAPI) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("The body was read.")
        yield b""

    call = Caller(app)
    assert (await call("POST", "/runs", content=body())).status_code == 401
    reader = bearer(token("ada", scope="runs:read"))
    assert (await call("POST", "/runs", reader, content=body())).status_code == 403
