"""Reading a site page by page, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scripts.sites import BROKEN, BUSY, CountingSite

from app.domain.scraping.address import site_of
from app.domain.scraping.site import AT_ONCE, IN_VAIN, step_name
from app.errors import RateLimited, Rejected
from app.outbound.neighbour import FAILURES, RECOVERY_SECONDS
from app.tasks import action
from app.testing import Rehearsal, perform


@pytest.fixture
def site() -> Iterator[CountingSite]:
    with CountingSite(25) as site:
        yield site


async def crawl(start: str, *, after: Rehearsal | None = None, **bounds: int) -> Rehearsal:
    """Everything, unless there are bounds."""
    wanted = {"url": start, "max_pages": 1000, "max_depth": 10, "pages_per_second": 50} | bounds
    return await perform(action["scrape_site"], wanted, after=after)


async def test_every_page_of_a_site_is_read_once_and_level_by_level(site: CountingSite) -> None:
    crawled = await crawl(site.start)
    assert [page["url"] for page in crawled.result["pages"]] == [f"{site.url}/page/{n}" for n in range(25)]
    assert [page["depth"] for page in crawled.result["pages"]] == [0] + [1] * 10 + [2] * 14
    assert (crawled.result["site"], crawled.result["not_visited"]) == (site_of(site.url), 0)
    assert {visits for path, visits in site.visits.items()} == {1}
    assert crawled.progress[-1][:2] == (27, 27)


async def test_a_page_that_fails_is_reported_and_one_that_robots_txt_forbids_is_not_asked_for(
    site: CountingSite,
) -> None:
    forbidden, missing = (await crawl(site.start)).result["failed"]
    assert [page["url"].rpartition("/")[2] for page in (forbidden, missing)] == ["forbidden", "missing"]
    assert "robots.txt" in forbidden["error"]
    assert "404" in missing["error"]
    assert site.visits["/page/forbidden"] == 0


@pytest.mark.parametrize(
    ("bounds", "visited", "not_visited"),
    [({"max_pages": 5}, 5, 22), ({"max_depth": 1}, 13, 14), ({"max_depth": 0}, 1, 12)],
    ids=["few", "near", "one"],
)
async def test_a_crawl_goes_no_further_than_it_may(
    site: CountingSite, bounds: dict[str, int], visited: int, not_visited: int
) -> None:
    crawled = (await crawl(site.start, **bounds)).result
    assert (len(crawled["pages"]) + len(crawled["failed"]), crawled["not_visited"]) == (visited, not_visited)


async def test_a_second_attempt_fetches_nothing_that_was_stored(site: CountingSite) -> None:
    first = await crawl(site.start)
    for lost in [f"{site.url}/page/{n}" for n in (7, 19)]:
        del first.steps[step_name(lost)]
    assert (await crawl(site.start, after=first)).result == first.result
    twice = {path for path, visits in site.visits.items() if visits == 2 and path != "/robots.txt"}
    assert twice == {"/page/7", "/page/19"}


async def test_a_crawl_whose_first_page_is_not_there_fails(site: CountingSite) -> None:
    failed = await crawl(f"{site.url}/page/99")
    assert isinstance(failed.error, Rejected)
    assert "404" in str(failed.error)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crawl that waits for nothing; a host is left alone as long as ever."""
    for pause in ("PAUSE_SECONDS", "LONGEST_PAUSE_SECONDS"):
        monkeypatch.setattr(f"app.domain.scraping.site.{pause}", 0)


@pytest.mark.usefixtures("impatient")
async def test_a_site_that_goes_away_ends_the_attempt_and_the_next_one_reads_what_is_left(site: CountingSite) -> None:
    site.instead = {f"/page/{n}": BROKEN for n in range(3, 25)}
    first = await crawl(site.start)
    assert isinstance(first.error, RateLimited)
    assert f"{site_of(site.url)} has failed 5 times in a row and is left alone" in str(first.error)
    assert 15 < first.error.retry_after <= RECOVERY_SECONDS
    # Those that were under way when it was left alone were answered, too.
    assert FAILURES <= sum(site.visits[path] for path in site.instead) < FAILURES + AT_ONCE

    failed = {page["url"] for page in first.steps.values() if "error" in page and "answered 500" in page["error"]}
    site.instead = {}
    second = (await crawl(site.start, after=first)).result
    assert len(second["pages"]) == 25 - len(failed)
    assert {page["url"] for page in second["failed"] if page["url"].rpartition("/")[2].isdigit()} == failed
    assert len(failed) <= 2
    assert [site.visits[f"/page/{n}"] for n in range(3)] == [1, 1, 1]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("broken", [{24}, {21, 22, 23, 24}], ids=["one", "four"])
async def test_pages_that_are_broken_do_not_keep_a_crawl_from_its_end(site: CountingSite, broken: set[int]) -> None:
    site.instead = {f"/page/{n}": BROKEN for n in broken}
    crawled = (await crawl(site.start)).result
    assert len(crawled["pages"]) == 25 - len(broken)
    assert {page["url"].removeprefix(site.url) for page in crawled["failed"]} >= site.instead.keys()


@pytest.mark.usefixtures("impatient")
async def test_a_site_that_is_busy_now_and_then_is_not_away(site: CountingSite) -> None:
    busy = [3, 5, 7, 9, 12, 14, 16, 18, 20, 22, 24]
    assert len(busy) > IN_VAIN
    site.instead = {f"/page/{n}": BUSY for n in busy}
    crawled = (await crawl(site.start)).result
    assert len(crawled["pages"]) == 25 - len(busy)
    assert {page["url"].removeprefix(site.url) for page in crawled["failed"]} >= site.instead.keys()


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
