"""Where there is a key, who reads the database cannot sign."""

from __future__ import annotations

import base64

import pytest
from tests.support.receiver import receiver
from tests.webhooks.conftest import OPEN, Post

from app.config import Settings
from app.errors import Unavailable
from app.outbound.webhooks.client import webhook_policy
from app.webhooks import service
from app.webhooks.schemas import WebhookCreate
from app.webhooks.sealing import Seal

OLD, NEW = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 2))
SECRET = "whsec_" + "c2VjcmV0" * 8


async def test_with_a_key_no_secret_is_in_the_database(post: Post) -> None:
    seal = Seal([NEW])
    request = WebhookCreate(url="http://127.0.0.1:9/")
    made = await service.create(post.engine, seal, webhook_policy(production=False), request, owner=None)
    rotated = await service.rotate_secret(post.engine, seal, made.id, owner=None)
    [row] = await post.fetch("SELECT * FROM webhook_endpoints")
    assert made.secret not in str(row)
    assert rotated.secret not in str(row)
    assert (seal.open(row["old_secret"]), seal.open(row["secret"])) == (made.secret, rotated.secret)


async def test_a_delivery_waits_for_the_key_that_its_secret_needs(post: Post) -> None:
    async with receiver(200) as there:
        request = WebhookCreate(url=there.url)
        await service.create(post.engine, Seal([NEW]), webhook_policy(production=False), request, owner=None)
        await post.submit("echo")
        await post.drain()
        assert there.got == []
        waiting = await post.fetch("SELECT state, error FROM action_runs WHERE action = 'deliver_webhook'")
        assert waiting[0]["state"] == "retrying"
        assert "WEBHOOK_KEY" in waiting[0]["error"]["detail"]


def test_keys_are_rotated_and_may_come_later() -> None:
    assert Seal([NEW, OLD]).open(Seal([OLD]).close(SECRET)) == SECRET
    assert Seal([NEW]).open(OPEN.close(SECRET)) == SECRET
    for stranger in (Seal([NEW]), OPEN):
        with pytest.raises(Unavailable, match="WEBHOOK_KEY"):
            stranger.open(Seal([OLD]).close(SECRET))


@pytest.mark.parametrize("key", ["short", "x" * 44, f"{NEW},", "é" * 44])
def test_what_is_no_key_is_refused_at_the_start_and_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="URL-safe Base64") as refused:
        Settings(_env_file=None, webhook_key=key)
    assert key not in str(refused.value.errors(include_input=False, include_url=False))  # pyright: ignore[reportAttributeAccessIssue]


def test_keys_are_read_with_the_newest_first() -> None:
    settings = Settings(_env_file=None, webhook_key=f"{NEW},{OLD}")
    assert settings.webhook_keys == [NEW, OLD]
    assert Settings(_env_file=None).webhook_keys == []
