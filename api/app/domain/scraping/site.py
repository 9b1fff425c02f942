"""A site, page by page from where it begins, each page once.

::

    start page → its links → one level after the other, a few pages at once → what was read, what failed, what is left

The order of pages follows from the pages alone, so a later attempt walks the same way: over the stored steps, and on.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

from pydantic import BaseModel

from app.domain.journal import Journal
from app.domain.scraping.address import canonical, site_of
from app.domain.scraping.page import ScrapedPage, scrape_page
from app.errors import ActionError, RateLimited, Unavailable
from app.outbound.web.client import WebClient

AT_ONCE = 4
"""Pages of one crawl that are being fetched at the same time."""
TRIES = 3
"""For a page that is not available; then it has failed."""
PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
IN_VAIN = 8
"""So many pages one after the other that the site has no time for end the attempt: it is the site that is away."""
MAX_PAGE_TEXT = 20_000
"""Characters. All pages of a crawl are read back when it goes on after a crash."""


class SitePage(BaseModel):
    """A page as a crawl keeps it, in a step."""

    url: str
    """Where it was in the end, after redirects."""
    title: str
    text: str
    """The main text, up to 20,000 characters."""
    links: list[str]
    """To pages of the same site."""


class FailedPage(BaseModel):
    """A page that could not be read."""

    url: str
    error: str


class FoundPage(BaseModel):
    """A page that was read. Its text is kept with the run."""

    url: str
    title: str
    depth: int
    """How many links away from the start."""
    characters: int
    """Of its text."""


class ScrapedSite(BaseModel):
    """What a crawl came to."""

    site: str
    pages: list[FoundPage]
    failed: list[FailedPage]
    not_visited: int
    """Pages that are linked to, and lie beyond `max_pages` or `max_depth`."""


@dataclass(frozen=True)
class Bounds:
    """How much of a site is visited, and how fast."""

    max_pages: int
    max_depth: int
    pages_per_second: float


async def scrape_site(journal: Journal, web: WebClient, url: str, bounds: Bounds) -> ScrapedSite:
    """Read the page at `url` and those that it leads to on the same host, as far as robots.txt allows.

    A page that fails is reported; only the first one must not fail. A site that goes away ends the attempt: the
    next one, when it may be asked again, reads what is left.

    Raises:
        Unavailable, Rejected: of the first page.
        RateLimited: the site wants to be left alone, or has failed so often that it is.
    """
    start = await journal.step(step_name(url), read_site_page, web, url, bounds.pages_per_second)
    crawl = _Crawl(journal, web, bounds, site_of(start.url))
    crawl.note(url, start, depth=0)
    for depth in range(1, bounds.max_depth + 1):
        await crawl.visit(crawl.next_level(), depth)
    return crawl.report()


def step_name(url: str) -> str:
    """The step of a page: the same for each spelling of its URL."""
    return f"page-{hashlib.sha256(canonical(url).encode()).hexdigest()[:24]}"


async def read_site_page(web: WebClient, url: str, per_second: float) -> SitePage:
    """Fetch and read one page when its host's turn has come.

    Raises:
        Unavailable, Rejected: as of any page.
    """
    page = await scrape_page(web, url, per_second=await web.crawl_pace(url, per_second))
    return SitePage(url=page.url, title=page.title, text=page.text[:MAX_PAGE_TEXT], links=_own_links(page))


@dataclass
class _Crawl:
    journal: Journal
    web: WebClient
    bounds: Bounds
    site: str
    pages: list[FoundPage] = field(default_factory=list)
    failed: list[FailedPage] = field(default_factory=list)
    _known: dict[str, str] = field(default_factory=dict)
    """Every page that was linked to: how it is linked to by its one spelling, in the order of discovery."""
    _visited: set[str] = field(default_factory=set)
    _done: int = 1
    _in_vain: int = 0
    """Pages that the site had no time for, since one was read."""
    _is_away: RateLimited | None = None
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _telling: asyncio.Lock = field(default_factory=asyncio.Lock)

    def next_level(self) -> list[str]:
        """The pages that are known and were not visited, as far as there is room for them."""
        room = self.bounds.max_pages - len(self.pages) - len(self.failed)
        return [link for page, link in self._known.items() if page not in self._visited][:room]

    async def visit(self, level: list[str], depth: int) -> None:
        """Read these pages, a few at once, and note them in their order.

        Raises:
            RateLimited: the site is away. What was read is kept.
        """
        async with asyncio.TaskGroup() as group:
            visits = [group.create_task(self._visit(url)) for url in level]
        if self._is_away is not None:
            raise self._is_away
        for url, visit in zip(level, visits, strict=True):
            self.note(url, visit.result(), depth)

    def note(self, url: str, page: SitePage | FailedPage, depth: int) -> None:
        """Remember that `url` was visited, and what became of it."""
        self._visited |= {canonical(url), canonical(page.url)}
        match page:
            case FailedPage():
                self.failed.append(page)
            case SitePage():
                self.pages.append(FoundPage(url=page.url, title=page.title, depth=depth, characters=len(page.text)))
                for link in page.links:
                    self._known.setdefault(canonical(link), link)

    def report(self) -> ScrapedSite:
        left = self._known.keys() - self._visited
        return ScrapedSite(site=self.site, pages=self.pages, failed=self.failed, not_visited=len(left))

    async def _visit(self, url: str) -> SitePage | FailedPage:
        async with self._slots:
            page = await self._read_or_give_up(url)
        # One after the other: progress goes forward only.
        async with self._telling:
            self._done += 1
            await self.journal.progress(self._done, min(len(self._known), self.bounds.max_pages), url)
        return page

    async def _read_or_give_up(self, url: str) -> SitePage | FailedPage:
        if self._is_away is not None:
            return FailedPage(url=url, error=str(self._is_away))
        try:
            return await self.journal.step(step_name(url), self._read, url)
        except RateLimited as error:
            # Not kept as a step: another attempt asks again.
            self._in_vain += 1
            if self._in_vain >= IN_VAIN:
                self._is_away = error
            return FailedPage(url=url, error=str(error))

    async def _read(self, url: str) -> SitePage | FailedPage:
        try:
            page = await self._read_patiently(url)
        except RateLimited:
            raise
        except ActionError as error:
            return FailedPage(url=url, error=str(error))
        self._in_vain = 0
        site = site_of(page.url)
        return page if site == self.site else FailedPage(url=url, error=f"It leads to {site}.")

    async def _read_patiently(self, url: str) -> SitePage:
        for _ in range(TRIES - 1):
            try:
                return await read_site_page(self.web, url, self.bounds.pages_per_second)
            except Unavailable as error:
                await asyncio.sleep(_pause(error))
        return await read_site_page(self.web, url, self.bounds.pages_per_second)


def _pause(error: Unavailable) -> float:
    return min(error.retry_after, LONGEST_PAUSE_SECONDS) if isinstance(error, RateLimited) else PAUSE_SECONDS


def _own_links(page: ScrapedPage) -> list[str]:
    site = site_of(page.url)
    return [link.url for link in page.links if _is_of(site, link.url)]


def _is_of(site: str, url: str) -> bool:
    try:
        return site_of(url) == site
    except ValueError:  # a port that is none
        return False
