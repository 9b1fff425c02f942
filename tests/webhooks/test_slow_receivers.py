"""Receivers that take their time."""

from __future__ import annotations

import pytest
from tests.support.receiver import HANG, receiver
from tests.webhooks.conftest import Post

from app.runs import submission
from app.runs.schemas import RunCreate
from app.runs.submission import Origin


@pytest.fixture
def patience() -> float:
    return 1


async def test_a_receiver_that_hangs_is_given_up_and_tried_again(post: Post) -> None:
    async with receiver(HANG) as there:
        endpoint = await post.endpoint(there.url)
        await post.submit("echo")
        await post.drain()
        [delivery] = await post.log(endpoint)
        assert (delivery.state, len(there.got)) == ("pending", 1)
        [attempt] = delivery.attempts
        assert attempt.status_code is None
        assert "too long" in str(attempt.error)
        assert delivery.next_attempt_at is not None
        assert 4 < (delivery.next_attempt_at - attempt.at).total_seconds() < 7


async def test_a_slow_endpoint_has_two_runs_at_most_and_holds_up_nobody(post: Post) -> None:
    async with receiver(HANG) as slow, receiver(200) as quick:
        await post.endpoint(slow.url, owner="ada")
        await post.endpoint(quick.url, owner="bob")
        echo = post.action["echo"]
        for owner in ["ada"] * 8 + ["bob"] * 8:
            await submission.submit(post.intake, echo, RunCreate(action="echo"), Origin(owner=owner))
        async with post.working(concurrency=4):
            await quick.gets(8)
            assert slow.most_open <= 2
            assert len(slow.got) < 8
        assert slow.most_open == 2
