"""Open streams and queued runs over HTTP: 429, with what is used up and when to come again."""

from __future__ import annotations

import pytest
from tests.support.callers import Caller, bearer, guarded, token
from tests.support.serving import open_api
from tests.support.workshop import Workshop

from app.access.principal import LOCAL, Principal, Scope
from app.access.streams import Streams
from app.errors import QuotaExceeded

ECHO = {"action": "echo", "params": {"message": "x"}}
ADA = Principal("jwt:ada", "ada", frozenset({Scope.READ}))


@pytest.fixture(autouse=True)
def echo(workshop: Workshop) -> None:
    @workshop.action()
    async def echo(message: str) -> str:
        return message


async def test_who_has_too_much_waiting_is_told_and_others_go_on(workshop: Workshop) -> None:
    async with open_api(workshop, guarded(workshop.settings, max_queued_runs=2)) as app:
        call = Caller(app)
        answers = [await call("POST", "/runs", bearer(token("ada")), json=ECHO) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        refused = answers[-1].json()
        assert (refused["type"], refused["quota"], refused["limit"]) == (
            "/problems/quota-exceeded", "queued_runs", 2,
        )  # fmt: skip
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert (await call("POST", "/actions/run", bearer(token("ada")), json=ECHO)).status_code == 429
        assert (await call("POST", "/runs", bearer(token("bob")), json=ECHO)).status_code == 202
        batch = await call("POST", "/runs/batch", bearer(token("bob")), json={"runs": [ECHO] * 2})
        assert [set(item) for item in batch.json()["items"]] == [{"id"}, {"error"}]


def test_a_stream_is_counted_while_it_is_open_and_by_principal() -> None:
    streams = Streams(2)
    with streams.one_more(ADA):
        with streams.one_more(ADA):
            with pytest.raises(QuotaExceeded), streams.one_more(ADA):
                pass
            with streams.one_more(Principal("jwt:bob", "bob", frozenset())):
                pass
            with streams.one_more(LOCAL), streams.one_more(LOCAL), streams.one_more(LOCAL):
                pass
        with streams.one_more(ADA):
            pass
    assert not streams._open


async def test_a_stream_too_many_is_429_before_it_begins_and_one_that_ended_makes_room(workshop: Workshop) -> None:
    async with open_api(workshop, guarded(workshop.settings, max_streams=1)) as app:
        call, streams = Caller(app), app.state.services.streams
        run = (await call("POST", "/runs", bearer(token("ada")), json=ECHO)).json()
        await workshop.drain()
        url = f"/runs/{run['id']}/events"
        with streams.one_more(ADA):
            refused = await call("GET", url, bearer(token("ada")))
            assert (refused.status_code, refused.json()["quota"]) == (429, "open_streams")
        for _ in range(2):
            assert (await call("GET", url, bearer(token("ada")))).status_code == 200
        # Neither what is not found nor what has nothing more to say keeps a place.
        assert (await call("GET", "/runs/run_x/events", bearer(token("ada")))).status_code == 404
        nothing_more = await call("GET", url, bearer(token("ada")) | {"last-event-id": "3"})
        assert nothing_more.status_code == 204
        assert not streams._open
