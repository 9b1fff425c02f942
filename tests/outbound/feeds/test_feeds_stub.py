"""The news site that is played, under the real web client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import pytest

from app.errors import ActionError, RateLimited, Rejected, Unavailable
from app.outbound.feeds.stub import FEED, HOST
from app.outbound.stubs import RETRY_AFTER_SECONDS, Stubs
from app.outbound.web.client import MAX_SECONDS, WebClient, open_web_client

RSS = ("application/rss+xml",)


@contextlib.asynccontextmanager
async def web(stubs: Stubs) -> AsyncGenerator[WebClient]:
    async with open_web_client(allow_private=False, played={HOST: lambda: stubs.url("feeds")}) as opened:
        yield opened


async def test_the_feed_and_its_articles_are_of_the_host_that_is_played(stubs: Stubs) -> None:
    async with web(stubs) as client:
        feed = await client.fetch(FEED, accept=RSS)
        article = await client.fetch(f"http://{HOST}/articles/1")
        await client.check_robots(article.url)
        with pytest.raises(Rejected, match=r"news\.example answered 404"):
            await client.fetch(f"http://{HOST}/articles/4")
    assert (feed.url, article.url) == (FEED, f"http://{HOST}/articles/1")
    assert "[stub]" in feed.text
    assert "[stub]" in article.text


async def test_the_feed_never_changes(stubs: Stubs) -> None:
    async with web(stubs) as client:
        feed = await client.fetch(FEED, accept=RSS)
        assert await client.fetch_if_changed(FEED, feed.validators, accept=RSS) is None


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ("[stub:429]", RateLimited, "news.example answered 429"),
        ("[stub:500]", Unavailable, "news.example answered 500"),
        ("[stub:slow]", Unavailable, "news.example took too long"),
        ("[stub:malformed]", Rejected, "news.example answered with application/json"),
    ],
)
async def test_each_trouble_is_an_error_of_its_kind(
    stubs: Stubs, asked: str, error: type[ActionError], message: str
) -> None:
    async with web(stubs) as client:
        with pytest.raises(ActionError, match=message) as raised:
            await client.fetch(f"{FEED}?{asked}", accept=RSS, timeout=0.3 if "slow" in asked else MAX_SECONDS)
    assert type(raised.value) is error
    if isinstance(raised.value, RateLimited):
        assert raised.value.retry_after == RETRY_AFTER_SECONDS


async def test_a_host_that_nobody_plays_is_looked_for_on_the_network(stubs: Stubs) -> None:
    async with open_web_client(allow_private=False) as client:
        with pytest.raises(Unavailable, match=r"news\.example cannot be reached"):
            await client.fetch(FEED, accept=RSS)
