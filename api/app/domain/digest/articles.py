"""The articles of a night, read where they are."""

from __future__ import annotations

from pydantic import BaseModel

from app.domain.digest.abreast import abreast
from app.domain.digest.models import Article
from app.domain.journal import Journal
from app.domain.scraping.page import PAGES_PER_SECOND, scrape_page
from app.errors import ActionError
from app.outbound.web.client import WebClient

MAX_TEXT = 3_000
"""Characters: enough to say in two sentences what it is about."""


class ReadArticle(BaseModel):
    """An article, and what there is to read of it."""

    article: Article
    text: str
    """Its beginning; or if it cannot be read, what the feed says of it."""


async def read_articles(run: Journal, web: WebClient, articles: list[Article]) -> list[ReadArticle]:
    """Read each article, robots.txt permitting, in a step of its own."""

    async def read(article: Article) -> ReadArticle:
        text = await run.step(f"article-{article.id}", read_text, web, article)
        return ReadArticle(article=article, text=text)

    return await abreast(read, articles)


async def read_text(web: WebClient, article: Article) -> str:
    """The beginning of an article; if it cannot be read, what the feed says of it. It is asked for once."""
    try:
        pace = await web.crawl_pace(article.link, PAGES_PER_SECOND)
        text = (await scrape_page(web, article.link, per_second=pace)).text
    except ActionError:
        text = ""
    return (text or article.summary or article.title)[:MAX_TEXT]
