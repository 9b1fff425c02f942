"""What a page says: title, description, main text and links."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

from lxml.etree import ParserError
from lxml.html import HtmlElement, HTMLParser, document_fromstring
from pydantic import BaseModel

from app.domain.scraping.address import absolute
from app.outbound.web.client import WebClient

PAGES_PER_SECOND = 5.0
"""Of one host, unless the caller has agreed on another pace with it."""
MAX_HTML = 1_000_000
"""Characters. Finding the main text of a hostile page takes the square of its length."""
MAX_TEXT = 50_000
MAX_LINE = 1_000
MAX_LINKS = 200

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""NUL and halves of surrogate pairs: neither PostgreSQL nor UTF-8 has a place for them."""


class Link(BaseModel):
    """Where a page links to, and the words that do."""

    url: str
    """Absolute, http or https, without fragment."""
    text: str


class PageContent(BaseModel):
    """What a page says. What it does not say is empty; what is too long is cut."""

    title: str
    description: str
    language: str
    """As the page declares it, such as `en` or `pt-BR`."""
    text: str
    """The main text without navigation and the like, up to 50,000 characters; paragraphs are lines."""
    links: list[Link]
    """The first 200, each URL once, in the order of the page."""


class ScrapedPage(PageContent):
    """A page as it was fetched."""

    url: str
    """Where it was in the end, after redirects."""
    status: int
    bytes_fetched: int
    """After decompression."""


async def scrape_page(web: WebClient, url: str, *, per_second: float = PAGES_PER_SECOND) -> ScrapedPage:
    """Fetch `url`, if the site's robots.txt allows it and when the host's turn has come, and read it.

    Raises:
        Unavailable: try again later (`RateLimited`: and when).
        Rejected: this URL will not give a page, however often it is tried.
    """
    await web.check_robots(url)
    await web.wait_turn(url, per_second)
    page = await web.fetch(url)
    content = await asyncio.to_thread(read_page, page.text, page.url)
    return ScrapedPage(url=page.url, status=page.status, bytes_fetched=len(page.body), **dict(content))


def read_page(html: str, url: str) -> PageContent:
    """Read `html`, which came from `url`. Broken, hostile and empty HTML have content too, if only little.

    Pure, and work for a thread: up to a second for an honest page, up to some ten for a hostile one.
    """
    tree = _parse(html[:MAX_HTML])
    return PageContent(
        title=_line(tree.findtext(".//title")),
        description=_description(tree),
        language=_line(tree.get("lang")),
        links=_links(tree, url),
        text=_text(tree),
    )


def words_of(html: str) -> str:
    """All words of a piece of HTML, in one line, without those of scripts and the like. Pure."""
    return UNSTORABLE.sub("", _all_text(_parse(html[:MAX_HTML])))


def _parse(html: str) -> HtmlElement:
    # lxml, because it stops at 256 levels of nesting. Parsers that follow the HTML standard to the letter need
    # minutes for some 100 kB of `<ul><li>`, and a thread cannot be stopped.
    parser = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        return document_fromstring(html.encode("utf-8", "replace"), parser=parser)
    except ParserError:  # there is no element in it
        return document_fromstring("<html></html>")


def _description(tree: HtmlElement) -> str:
    said = {_meta_name(meta): meta.get("content") for meta in tree.iter("meta")}
    return _line(said.get("description") or said.get("og:description"))


def _meta_name(meta: HtmlElement) -> str:
    return (meta.get("name") or meta.get("property") or "").lower()


def _links(tree: HtmlElement, url: str) -> list[Link]:
    found: dict[str, Link] = {}
    for target, text in _anchors(tree, url):
        found.setdefault(target, Link(url=target, text=text))
        if len(found) == MAX_LINKS:
            break
    return list(found.values())


def _anchors(tree: HtmlElement, url: str) -> Iterator[tuple[str, str]]:
    base = tree.find(".//base[@href]")
    start = url if base is None else absolute(base.get("href"), url) or url
    for anchor in tree.iterfind(".//a[@href]"):
        if target := absolute(anchor.get("href"), start):
            yield target, _line(anchor.text_content())


def _text(tree: HtmlElement) -> str:
    # Not at the top: it is a tenth of what a process imports, and the API reads no pages.
    import trafilatura

    text = trafilatura.extract(tree, include_comments=False) or _all_text(tree)
    return UNSTORABLE.sub("", text).strip()[:MAX_TEXT]


def _all_text(tree: HtmlElement) -> str:
    for unread in list(tree.iter("head", "script", "style", "template")):
        unread.drop_tree()
    return " ".join(" ".join(tree.itertext()).split())


def _line(text: str | None) -> str:
    return UNSTORABLE.sub("", " ".join((text or "").split()))[:MAX_LINE]
