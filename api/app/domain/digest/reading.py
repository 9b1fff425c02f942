"""The news: what the feeds have that no digest had."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from app.domain.digest.abreast import abreast
from app.domain.digest.feeds import published, read_feed
from app.domain.digest.models import Article, FeedReport, Shelf
from app.domain.journal import Journal
from app.errors import ActionError, Rejected, Unavailable
from app.outbound.web.client import WebClient
from app.outbound.web.page import Validators

TYPES = (
    "application/rss+xml",
    "application/atom+xml",
    "application/rdf+xml",
    "application/xml",
    "text/xml",
    "text/plain",
)
MAX_FEED_BYTES = 2 * 1024 * 1024
OF_ONE_FEED = 10
IN_ONE_DIGEST = 20


class FeedReading(BaseModel):
    """What a feed had to say tonight."""

    url: str
    validators: Validators | None = None
    """`None`: those that are known still hold."""
    new: list[str] = []
    """The ids of its articles that no digest had."""
    articles: list[Article] = []
    """The newest of them."""
    problem: str | None = None
    """Why it could not be read, if it could not."""

    def report(self) -> FeedReport:
        """What a reader of the digest is told."""
        return FeedReport(url=self.url, articles=len(self.new), problem=self.problem)

    def remembered(self) -> dict[str, Any]:
        """What the next night must know."""
        return self.model_dump(include={"url", "validators", "problem"})


class News(BaseModel):
    """What is new tonight."""

    readings: list[FeedReading]
    articles: list[Article]
    """For the digest: the newest first, each once."""

    @property
    def known(self) -> list[str]:
        """The ids of all that is known after tonight, in the digest or not."""
        return list({new: None for reading in self.readings for new in reading.new})

    @property
    def passed_over(self) -> int:
        """How many new articles there was no room for."""
        return len(self.known) - len(self.articles)


async def read_news(run: Journal, web: WebClient, shelf: Shelf, feeds: Sequence[str]) -> News:
    """Read every feed, each in a step of its own. One that cannot be read is a problem of its own, too.

    Raises:
        Unavailable: none can be read, and later some may.
        Rejected: none can be read, now or later.
    """
    errors: list[ActionError] = []

    async def read(url: str) -> FeedReading:
        try:
            return await run.step(_step_name(url), read_new, web, shelf, url)
        except ActionError as error:
            # Not kept as a step: if another attempt is needed, the feed may be there by then.
            errors.append(error)
            await run.log("A feed cannot be read", level="warning", feed=url, problem=str(error))
            return FeedReading(url=url, problem=str(error))

    readings = await abreast(read, feeds)
    if len(errors) == len(feeds):
        raise _all_failed(errors)
    return News(readings=readings, articles=_chosen(readings))


async def read_new(web: WebClient, shelf: Shelf, url: str) -> FeedReading:
    """What a feed has that no digest had.

    Raises:
        Unavailable, Rejected: as of any page; or it is no feed.
    """
    known = await shelf.get_validators(url)
    page = await web.fetch_if_changed(url, known, accept=TYPES, max_bytes=MAX_FEED_BYTES)
    if page is None:
        return FeedReading(url=url)
    listed = {article.id: article for article in (await read_feed(page)).articles}
    unknown = await shelf.list_new(list(listed))
    new = [each for each in listed if each in unknown]
    newest = [listed[each] for each in new[:OF_ONE_FEED]]
    return FeedReading(url=url, validators=page.validators, new=new, articles=newest)


def _step_name(url: str) -> str:
    return f"feed-{hashlib.sha256(url.encode()).hexdigest()[:24]}"


def _chosen(readings: list[FeedReading]) -> list[Article]:
    chosen: dict[str, Article] = {}
    for reading in readings:
        for article in reading.articles:
            chosen.setdefault(article.id, article)
    return sorted(chosen.values(), key=published, reverse=True)[:IN_ONE_DIGEST]


def _all_failed(errors: list[ActionError]) -> ActionError:
    """The error of them all: one that may pass, if there is one."""
    worst = next((error for error in errors if isinstance(error, Unavailable)), errors[0])
    if len(errors) == 1:
        return worst
    kind = Unavailable if isinstance(worst, Unavailable) else Rejected
    return kind(f"None of the {len(errors)} feeds can be read. One says: {worst}")
