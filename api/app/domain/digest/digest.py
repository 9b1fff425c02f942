"""The news of a night: one digest, however often it is asked for, and each part of it paid once.

::

    feeds → what no digest had → its articles, read → summarised in one call → stored → mailed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from app.domain.digest.articles import ReadArticle, read_articles
from app.domain.digest.letter import compose
from app.domain.digest.models import Digest, Item, Shelf
from app.domain.digest.reading import News, read_news
from app.domain.digest.summarising import Summaries, summarise
from app.domain.journal import Journal
from app.domain.mail.message import send_mail
from app.outbound.clients import Clients

STAGES = 5


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    run_id: str
    timestamp: int | None
    """Whose night, in seconds since 1970; `None`: this one. Nights are those of UTC."""
    feeds: Sequence[str]
    readers: Sequence[str]
    """Who gets it by mail."""


async def make_digest(run: Journal, clients: Clients, shelf: Shelf, order: Order) -> Digest:
    """Make the digest of a night, store it, and mail it to its readers. If the night has one, tell that.

    Raises:
        Unavailable: no feed can be read now, or a service cannot do its part now.
        Rejected: no feed can be read at all, or a service will not do its part.
    """
    night = await run.step("night", night_of, order.timestamp)
    stored = await shelf.get_digest(night)
    if stored is not None and stored["run_id"] != order.run_id:
        return Digest.model_validate({**stored, "outcome": "made_before"})
    if stored is None and not order.feeds:
        return Digest(night=night, outcome="no_feeds")
    news = await run.step("news", read_news, run, clients.web, shelf, order.feeds)
    await run.progress(1, STAGES, f"{len(news.articles)} new articles")
    if not news.articles:
        return await run.step("remember", _remember, shelf, night, news)
    articles = await read_articles(run, clients.web, news.articles)
    await run.progress(2, STAGES, "articles read")
    summaries = await run.step("summarise", summarise, clients.anthropic, articles)
    await run.progress(3, STAGES, "summarised")
    digest = await run.step("store", _store, shelf, order.run_id, _compiled(night, news, articles, summaries), news)
    await run.progress(4, STAGES, "stored")
    if order.readers and digest.outcome == "made":
        mail = compose(digest, order.readers)
        digest.mail = await send_mail(run, order.run_id, mail, clients.mailer, clients.storage)
    await run.progress(STAGES, STAGES, digest.title)
    return digest


async def night_of(timestamp: int | None) -> date:
    """The day of UTC in which it is. A step, because an attempt after midnight goes on with the same night."""
    return (datetime.now(UTC) if timestamp is None else datetime.fromtimestamp(timestamp, UTC)).date()


async def _remember(shelf: Shelf, night: date, news: News) -> Digest:
    await shelf.put_feeds([reading.remembered() for reading in news.readings])
    return Digest(night=night, outcome="nothing_new", feeds=[reading.report() for reading in news.readings])


def _compiled(night: date, news: News, articles: list[ReadArticle], said: Summaries) -> Digest:
    return Digest(
        night=night,
        outcome="made",
        title=said.title,
        summary=said.summary,
        items=[
            Item.model_validate({**read.article.model_dump(), "summary": summary})
            for read, summary in zip(articles, said.articles, strict=True)
        ],
        passed_over=news.passed_over,
        feeds=[reading.report() for reading in news.readings],
    )


async def _store(shelf: Shelf, run_id: str, digest: Digest, news: News) -> Digest:
    """Store the digest, unless the night has one by now: then that counts."""
    await shelf.put_digest(
        digest.night,
        run_id,
        digest=digest.model_dump(mode="json", include={"title", "summary", "items", "feeds", "passed_over"}),
        feeds=[reading.remembered() for reading in news.readings],
        articles=news.known,
    )
    stored = await shelf.get_digest(digest.night)
    if stored is None or stored["run_id"] == run_id:
        return digest
    return Digest.model_validate({**stored, "outcome": "made_before"})
