"""What receivers get, and what becomes of it when they do not take it."""

from __future__ import annotations

import json

import pytest
from tests.support.receiver import receiver
from tests.webhooks.conftest import OPEN, Post

from app.errors import DeliveryPending, Rejected, Unavailable, WebhookDisabled
from app.runs import submission
from app.runs.schemas import RunCreate
from app.runs.submission import Origin
from app.webhooks import deliveries, service


async def test_an_event_is_signed_thin_and_says_which_run_has_ended(post: Post) -> None:
    async with receiver(200) as there:
        endpoint = await post.endpoint(there.url)
        run = await post.submit("echo", message="x" * 100_000)
        await post.drain()
        [got] = there.got
        event = got.verified(endpoint.secret)
        assert event["type"] == "run.succeeded"
        assert (event["data"]["id"], event["data"]["state"]) == (run.id, "succeeded")
        assert event["data"]["links"] == {"self": f"/runs/{run.id}"}
        assert len(got.body) < 20_000
        assert got.id == f"evt{run.id[3:]}_3"
        assert got.headers["content-type"] == "application/json"
        [delivery] = await post.log(endpoint)
        assert (delivery.state, delivery.run_id, delivery.event_id) == ("delivered", run.id, got.id)
        assert [attempt.status_code for attempt in delivery.attempts] == [200]


async def test_a_failed_run_tells_why(post: Post) -> None:
    async with receiver(200) as there:
        endpoint = await post.endpoint(there.url, "run.failed")
        await post.submit("echo")
        run = await post.submit("refuse")
        await post.drain()
        [got] = there.got
        event = got.verified(endpoint.secret)
        assert (event["type"], event["data"]["id"]) == ("run.failed", run.id)
        assert event["data"]["error"] == {"type": "/problems/rejected", "title": "Rejected", "detail": "never"}


async def test_a_receiver_that_recovers_gets_the_same_bytes_under_the_same_id(post: Post) -> None:
    async with receiver(500, 500, 500, 200) as there:
        endpoint = await post.endpoint(there.url)
        await post.submit("echo")
        await post.drain_all()
        assert len(there.got) == 4
        assert len({(got.id, got.body) for got in there.got}) == 1
        for got in there.got:
            got.verified(endpoint.secret)
        [delivery] = await post.log(endpoint)
        assert delivery.state == "delivered"
        assert [attempt.status_code for attempt in delivery.attempts] == [500, 500, 500, 200]


async def test_a_redirect_is_a_failure_and_nobody_connects_to_where_it_points(post: Post) -> None:
    async with receiver(200) as metadata, receiver(302, Location=metadata.url) as there:
        endpoint = await post.endpoint(there.url)
        await post.submit("echo")
        await post.drain()
        [delivery] = await post.log(endpoint)
        assert [attempt.status_code for attempt in delivery.attempts] == [302]
        assert delivery.state == "pending"
        assert metadata.got == []


async def test_a_metadata_service_is_never_connected_to_even_where_private_addresses_are_allowed(post: Post) -> None:
    async with receiver(200) as there:
        endpoint = await post.endpoint(there.url)
        await post.execute("UPDATE webhook_endpoints SET url = 'http://169.254.169.254/latest/meta-data/'")
        await post.submit("echo")
        await post.drain()
        [delivery] = await post.log(endpoint)
        assert delivery.state == "failed"
        assert "may not receive events" in str(delivery.attempts[0].error)


async def test_gone_disables_the_endpoint_and_enabling_lets_it_be_told_again(post: Post) -> None:
    async with receiver(500, 410, 200) as there:
        endpoint = await post.endpoint(there.url)
        waiting = await post.submit("echo")
        await post.drain()
        await post.submit("echo")
        await post.drain()
        disabled = await service.get(post.engine, endpoint.id, owner=None)
        assert disabled.disabled_at is not None
        assert disabled.disabled_because == "It answered 410 (Gone)."
        assert [each.state for each in await post.log(endpoint)] == ["failed", "failed"]
        await post.submit("echo")
        await post.drain_all()
        assert len(there.got) == 2
        [_, oldest] = await post.log(endpoint)
        with pytest.raises(WebhookDisabled):
            await deliveries.redeliver(post.engine, endpoint.id, oldest.id, owner=None)

        await service.enable(post.engine, endpoint.id, owner=None)
        again = await deliveries.redeliver(post.engine, endpoint.id, oldest.id, owner=None)
        assert (again.id, again.state, again.event_id) == (oldest.id, "pending", oldest.event_id)
        await post.drain()
        assert there.got[-1].verified(endpoint.secret)["data"]["id"] == waiting.id
        assert (there.got[-1].id, there.got[-1].body) == (there.got[0].id, there.got[0].body)


async def test_patience_that_a_receiver_asks_for_is_given(post: Post) -> None:
    async with receiver(503, Retry_After="600") as there:
        endpoint = await post.endpoint(there.url)
        await post.submit("echo")
        await post.drain()
        [delivery] = await post.log(endpoint)
        assert delivery.next_attempt_at is not None
        assert 595 < (delivery.next_attempt_at - delivery.attempts[0].at).total_seconds() < 605


@pytest.mark.parametrize(("status", "headers"), [(404, {}), (429, {"Retry_After": "1"})])
async def test_an_endpoint_where_nothing_ever_arrives_is_disabled_after_ten_attempts(
    post: Post, status: int, headers: dict[str, str]
) -> None:
    async with receiver(status, **headers) as there:
        endpoint = await post.endpoint(there.url)
        await post.submit("echo")
        await post.drain_all()
        assert len(there.got) == 10
        [delivery] = await post.log(endpoint)
        assert delivery.state == "failed"
        assert (await service.get(post.engine, endpoint.id, owner=None)).disabled_at is not None


async def test_one_event_that_a_receiver_refuses_does_not_disable_it(post: Post) -> None:
    async with receiver(*[404] * 9, 200, 404) as there:
        endpoint = await post.endpoint(there.url)
        first = await post.submit("echo")
        for _ in range(9):
            await post.execute("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo'")
            await post.drain()
        await post.submit("echo")
        await post.drain()
        await post.drain_all()
        by_run = {each.run_id: each.state for each in await post.log(endpoint)}
        assert by_run.pop(first.id) == "failed"
        assert set(by_run.values()) == {"delivered"}
        assert (await service.get(post.engine, endpoint.id, owner=None)).disabled_at is None


async def test_while_a_secret_is_rotated_both_sign_and_a_day_later_the_new_one(post: Post) -> None:
    async with receiver(200) as there:
        endpoint = await post.endpoint(there.url)
        rotated = await service.rotate_secret(post.engine, OPEN, endpoint.id, owner=None)
        assert rotated.secret != endpoint.secret
        await post.submit("echo")
        await post.drain()
        for secret in (endpoint.secret, rotated.secret):
            there.got[0].verified(secret)
        await post.execute("UPDATE webhook_endpoints SET old_secret_until = now()")
        await post.submit("echo")
        await post.drain()
        there.got[1].verified(rotated.secret)
        assert len(there.got[1].headers["webhook-signature"].split()) == 1


async def test_nobody_is_told_of_another_owner_s_runs_and_who_sees_everything_is_told_of_all(post: Post) -> None:
    async with receiver(200) as ada, receiver(200) as bob, receiver(200) as everybody:
        for there, owner in ((ada, "ada"), (bob, "bob"), (everybody, None)):
            await post.endpoint(there.url, owner=owner)
        echo = post.action["echo"]
        run = await submission.submit(post.intake, echo, RunCreate(action="echo"), Origin(owner="ada"))
        await post.drain()
        assert [json.loads(got.body)["data"]["id"] for got in ada.got + everybody.got] == [run.id, run.id]
        assert bob.got == []


async def test_a_delivery_is_attempted_by_its_own_run_only(post: Post) -> None:
    async with receiver(200) as there:
        endpoint = await post.endpoint(there.url)
        await post.submit("echo")
        await post.drain()
        [delivery] = await post.log(endpoint)
        forged = await post.submit("deliver_webhook", delivery_id=delivery.id)
        await post.drain()
        assert (await post.get(forged)).state == "failed"
        assert len(there.got) == 1


async def test_a_delivery_that_is_being_attempted_is_not_started_again(post: Post) -> None:
    async with receiver(500) as there:
        endpoint = await post.endpoint(there.url)
        await post.submit("echo")
        await post.drain()
        [delivery] = await post.log(endpoint)
        with pytest.raises(DeliveryPending):
            await deliveries.redeliver(post.engine, endpoint.id, delivery.id, owner=None)


async def test_deleting_an_endpoint_ends_what_waits_for_it(post: Post) -> None:
    async with receiver(500) as there:
        endpoint = await post.endpoint(there.url)
        await post.submit("echo")
        await post.drain()
        await service.delete(post.engine, endpoint.id, owner=None)
        assert await post.value("SELECT state FROM action_runs WHERE action = 'deliver_webhook'") == "cancelled"
        assert await post.value("SELECT count(*) FROM webhook_deliveries") == 0


def test_the_waits_are_those_of_the_specification_and_a_little_longer() -> None:
    table = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
    for attempts, wait in enumerate(table, start=1):
        delay = deliveries.RETRY.delay(Unavailable(), attempts=attempts)
        assert delay is not None
        assert wait <= delay <= 1.1 * wait
    assert deliveries.RETRY.delay(Unavailable(), attempts=10) is None
    assert deliveries.RETRY.delay(Rejected(), attempts=1) is None
