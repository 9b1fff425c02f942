"""robots.txt: asked before a page is, and kept for a day."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.web.client import MAX_ROBOTS_BYTES, WebClient, open_web_client
from app.outbound.web.robots import KEPT_SECONDS, KEPT_SITES

HOUR = 3600.0
PAGE = "https://site.example/private/page?q=1"
NO_ENTRY = "User-agent: *\nDisallow: /private/\n"


@dataclass
class Site:
    """Every site at once: answers requests for robots.txt, and remembers them."""

    status: int = 200
    text: str | bytes = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    time: float = 1_766_000_000.0
    asked: list[str] = field(default_factory=list[str])

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(str(request.url))
        return httpx2.Response(self.status, content=self.text, headers=self.headers)


@contextlib.asynccontextmanager
async def visiting(site: Site) -> AsyncGenerator[WebClient]:
    transport = httpx2.MockTransport(site.answer)
    async with open_web_client(allow_private=False, transport=transport, now=lambda: site.time) as web:
        yield web


async def test_a_page_that_robots_txt_forbids_is_rejected() -> None:
    async with visiting(Site(text=NO_ENTRY)) as web:
        with pytest.raises(Rejected, match=r"robots\.txt of site\.example"):
            await web.check_robots(PAGE)
        await web.check_robots("https://site.example/public")


async def test_rules_for_our_name_come_before_those_for_everybody() -> None:
    async with visiting(Site(text="User-agent: *\nDisallow: /\n\nUser-agent: runledger\nAllow: /\n")) as web:
        await web.check_robots(PAGE)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_site_without_robots_txt_forbids_nothing(status: int) -> None:
    async with visiting(Site(status=status, text=NO_ENTRY)) as web:
        await web.check_robots(PAGE)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_robots_txt_that_cannot_be_read_now_is_asked_for_again_later(status: int) -> None:
    site = Site(status=status)
    async with visiting(site) as web:
        with pytest.raises(Unavailable):
            await web.check_robots(PAGE)
        site.status = 200
        await web.check_robots(PAGE)
    assert len(site.asked) == 2


async def test_a_site_that_says_when_is_asked_for_its_robots_txt_then() -> None:
    async with visiting(Site(status=503, headers={"Retry-After": "9"})) as web:
        with pytest.raises(RateLimited) as raised:
            await web.check_robots(PAGE)
    assert raised.value.retry_after == 9


async def test_robots_txt_is_kept_for_a_day() -> None:
    site = Site()
    async with visiting(site) as web:
        for _ in range(2):
            await web.check_robots(PAGE)
        site.time += KEPT_SECONDS - HOUR
        await web.check_robots(PAGE)
        assert len(site.asked) == 1
        site.time += HOUR
        await web.check_robots(PAGE)
        assert len(site.asked) == 2


async def test_each_origin_has_a_robots_txt_of_its_own() -> None:
    site = Site()
    async with visiting(site) as web:
        for origin in ("http://a.example", "https://a.example", "https://b.example"):
            await web.check_robots(f"{origin}/page")
    assert site.asked == [
        "http://a.example/robots.txt",
        "https://a.example/robots.txt",
        "https://b.example/robots.txt",
    ]


async def test_the_sites_that_were_asked_first_are_forgotten_first() -> None:
    site = Site()
    async with visiting(site) as web:
        for number in range(KEPT_SITES + 1):
            await web.check_robots(f"https://{number}.example/")
        await web.check_robots("https://1.example/")
        assert len(site.asked) == KEPT_SITES + 1
        await web.check_robots("https://0.example/")
        assert len(site.asked) == KEPT_SITES + 2


async def test_a_robots_txt_without_end_is_rejected() -> None:
    async with visiting(Site(text="#" * (MAX_ROBOTS_BYTES + 1))) as web:
        with pytest.raises(Rejected):
            await web.check_robots(PAGE)


async def test_a_url_that_may_not_be_fetched_is_rejected_before_its_robots_txt() -> None:
    site = Site()
    async with visiting(site) as web:
        with pytest.raises(Rejected):
            await web.check_robots("http://169.254.169.254/latest/meta-data/")
    assert not site.asked


@pytest.mark.parametrize(
    ("rule", "pace"), [("", 5), ("Crawl-delay: 0.1", 5), ("Crawl-delay: 2", 0.5), ("Crawl-delay: 3600", 1 / 60)]
)
async def test_a_crawl_is_as_fast_as_it_wishes_unless_the_site_wishes_less(rule: str, pace: float) -> None:
    async with visiting(Site(text=f"User-agent: *\nDisallow: /x\n{rule}\n".encode())) as web:
        assert await web.crawl_pace(PAGE, 5) == pytest.approx(pace)


LINES = st.lists(
    st.tuples(
        st.sampled_from(["User-agent", "Disallow", "Allow", "Crawl-delay", "Request-rate", "Visit-time", "Host", "x"]),
        st.text(max_size=20) | st.sampled_from(["*", "/", "/*$", "$*", "%", "%zz", "-1", "9" * 400, "1/0s", "\x00"]),
    ).map(": ".join)
)


@settings(deadline=None)
@given(lines=LINES, rest=st.binary(max_size=50))
async def test_no_robots_txt_can_surprise_us(lines: list[str], rest: bytes) -> None:
    async with visiting(Site(text="\n".join(lines).encode("utf-8", "surrogatepass") + rest)) as web:
        with contextlib.suppress(Rejected):
            await web.check_robots(PAGE)
        assert 1 / 60 <= await web.crawl_pace(PAGE, 5) <= 5
