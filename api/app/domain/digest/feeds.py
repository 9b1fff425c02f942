"""What a feed says: RSS or Atom, as it is and not as it should be."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from app.domain.digest.models import Article, one_line
from app.domain.files.child import read_in_child
from app.domain.scraping.address import absolute, site_of
from app.domain.scraping.page import words_of
from app.errors import Rejected
from app.outbound.web.page import Page

MAX_ARTICLES = 200
MAX_TITLE = 300
MAX_SUMMARY = 2_000


class Feed(BaseModel):
    """A feed as it is now."""

    title: str
    articles: list[Article]
    """The newest first, then those without a date in the feed's order; each link once, up to 200."""


async def read_feed(page: Page) -> Feed:
    """Read a feed, in a child process: a hostile one takes its time.

    Raises:
        Rejected: it is no feed, or takes too much time or memory.
    """
    try:
        feed = await read_in_child(functools.partial(parse, url=page.url, now=datetime.now(UTC)), page.body)
    except Rejected:
        # Not what it says, which is about files that somebody has sent.
        raise Rejected(f"The feed of {site_of(page.url)} takes too long or too much memory to read.") from None
    if feed is None:
        raise Rejected(f"{site_of(page.url)} sent neither RSS nor Atom. Give the URL of a feed.")
    return feed


def parse(data: bytes, *, url: str, now: datetime) -> Feed | None:
    """What the feed at `url` says, `None` if it is none. What has no link that can be fetched is left out."""
    # Not at the top: only the child needs it.
    import feedparser

    # Not the bytes themselves: feedparser would open a file of that name.
    said = feedparser.parse(
        io.BytesIO(data),
        response_headers={"content-location": url, "content-type": "application/xml"},
        sanitize_html=False,
        resolve_relative_uris=False,
    )
    if not said.get("version") and not said.entries:
        return None
    source = _text(said.feed.get("title_detail"), MAX_TITLE) or url
    articles: dict[str, Article] = {}
    for entry in said.entries:
        if article := _article(entry, url, source, now):
            articles.setdefault(article.id, article)
    # Stable: what has no date keeps the feed's order.
    newest = sorted(articles.values(), key=published, reverse=True)
    return Feed(title=source, articles=newest[:MAX_ARTICLES])


def published(article: Article) -> float:
    """When an article was published, in seconds since 1970; what does not say comes after all that do."""
    return article.published.timestamp() if article.published else 0.0


def _article(entry: Mapping[str, Any], url: str, source: str, now: datetime) -> Article | None:
    link = absolute(entry["link"], url) if entry.get("link") else None
    if link is None:
        return None
    [content, *_] = entry.get("content") or [None]
    summary = _text(entry.get("summary_detail"), MAX_SUMMARY) or _text(content, MAX_SUMMARY)
    return Article(
        link=link,
        title=_text(entry.get("title_detail"), MAX_TITLE) or summary[:MAX_TITLE] or link,
        source=source,
        published=_date(entry, now),
        summary=summary,
    )


def _text(said: Mapping[str, Any] | None, longest: int) -> str:
    if said is None:
        return ""
    value = said.get("value") or ""
    return one_line(value if said.get("type") == "text/plain" else words_of(value))[:longest]


def _date(entry: Mapping[str, Any], now: datetime) -> datetime | None:
    """When it was published; a time that is still to come says nothing."""
    said = next((entry[name] for name in ("published_parsed", "updated_parsed") if name in entry), None)
    try:
        date = datetime(*said[:6], tzinfo=UTC) if said else None
    except ValueError:
        return None
    return date if date and date <= now else None
