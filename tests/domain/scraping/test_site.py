"""Reading a site page by page, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from scripts.counting_site import CountingSite
from tests.support.journals import MemoryJournal

from app.domain.scraping.address import site_of
from app.domain.scraping.site import Bounds, scrape_site, step_name
from app.errors import Rejected
from app.outbound.web.client import WebClient, open_web_client

EVERYTHING = Bounds(max_pages=1000, max_depth=10, pages_per_second=1000)


@pytest.fixture
def site() -> Iterator[CountingSite]:
    with CountingSite(25) as site:
        yield site


@pytest.fixture
async def web() -> AsyncIterator[WebClient]:
    async with open_web_client(allow_private=True) as web:
        yield web


async def test_every_page_of_a_site_is_read_once_and_level_by_level(site: CountingSite, web: WebClient) -> None:
    journal = MemoryJournal()
    crawled = await scrape_site(journal, web, site.start, EVERYTHING)
    assert [page.url for page in crawled.pages] == [f"{site.url}/page/{n}" for n in range(25)]
    assert [page.depth for page in crawled.pages] == [0] + [1] * 10 + [2] * 14
    assert (crawled.site, crawled.not_visited) == (site_of(site.url), 0)
    assert {visits for path, visits in site.visits.items()} == {1}
    assert journal.told[-1] == (27, 27)


async def test_a_page_that_fails_is_reported_and_one_that_robots_txt_forbids_is_not_asked_for(
    site: CountingSite, web: WebClient
) -> None:
    crawled = await scrape_site(MemoryJournal(), web, site.start, EVERYTHING)
    assert [page.url.rpartition("/")[2] for page in crawled.failed] == ["forbidden", "missing"]
    assert "robots.txt" in crawled.failed[0].error
    assert "404" in crawled.failed[1].error
    assert site.visits["/page/forbidden"] == 0


async def test_a_crawl_goes_no_further_than_it_may(site: CountingSite, web: WebClient) -> None:
    few = await scrape_site(MemoryJournal(), web, site.start, Bounds(5, 10, 1000))
    assert (len(few.pages) + len(few.failed), few.not_visited) == (5, 22)
    near = await scrape_site(MemoryJournal(), web, site.start, Bounds(1000, 1, 1000))
    assert (len(near.pages), near.not_visited) == (11, 14)
    one = await scrape_site(MemoryJournal(), web, site.start, Bounds(1000, 0, 1000))
    assert (len(one.pages), one.not_visited) == (1, 12)


async def test_a_second_attempt_fetches_nothing_that_was_stored(site: CountingSite, web: WebClient) -> None:
    journal = MemoryJournal()
    first = await scrape_site(journal, web, site.start, EVERYTHING)
    for lost in [f"{site.url}/page/{n}" for n in (7, 19)]:
        del journal.steps[step_name(lost)]
    assert await scrape_site(journal, web, site.start, EVERYTHING) == first
    twice = {path for path, visits in site.visits.items() if visits == 2}
    assert twice == {"/page/7", "/page/19"}


async def test_a_crawl_whose_first_page_is_not_there_fails(site: CountingSite, web: WebClient) -> None:
    with pytest.raises(Rejected, match="404"):
        await scrape_site(MemoryJournal(), web, f"{site.url}/page/99", EVERYTHING)


def test_spellings_of_one_page_are_one_step() -> None:
    assert step_name("http://site.example/a/../b?y=1&x=2#top") == step_name("HTTP://Site.example/b?x=2&y=1")


@pytest.mark.parametrize(
    ("url", "site"),
    [
        ("https://Site.example/", "site.example"),
        ("https://site.example:443/", "site.example"),
        ("http://site.example:443/", "site.example:443"),
        ("http://127.0.0.1:8080/x", "127.0.0.1:8080"),
    ],
)
def test_a_site_is_a_host_and_a_port_that_is_not_the_usual_one(url: str, site: str) -> None:
    assert site_of(url) == site
