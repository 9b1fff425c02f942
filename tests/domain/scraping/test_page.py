"""Reading a page, from the demo site and from HTML that means no good."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts.sites import DemoSite

from app.domain.scraping.page import (
    MAX_HTML,
    MAX_LINE,
    MAX_LINKS,
    MAX_TEXT,
    PAGES_PER_SECOND,
    PageContent,
    read_page,
    scrape_page,
)
from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.pace import Pace
from app.outbound.web.client import open_web_client

URL = "https://site.example/dir/page"


def read(body: str, head: str = "") -> PageContent:
    return read_page(f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>", URL)


def links(body: str, head: str = "") -> list[str]:
    return [link.url for link in read(body, head).links]


# The demo site, over a real socket


async def test_a_page_is_scraped_from_a_site() -> None:
    with DemoSite() as site:
        async with open_web_client(allow_private=True) as web:
            page = await scrape_page(web, f"{site.url}/")
    assert (page.url, page.status, page.language) == (f"{site.url}/", 200, "en")
    assert page.title == "How lighthouses learned to blink"
    assert page.description == "Why every lighthouse has a rhythm of its own, and who thought of it."
    assert "Augustin Fresnel gave the light its reach." in page.text
    assert "A page with moods" not in page.text
    assert [(link.url, link.text) for link in page.links[:2]] == [
        (f"{site.url}/", "Home"),
        (f"{site.url}/moody", "A page with moods"),
    ]
    assert page.bytes_fetched > len(page.text)


async def test_a_page_that_is_moody_twice_is_scraped_the_third_time() -> None:
    with DemoSite() as site:
        async with open_web_client(allow_private=True) as web:
            with pytest.raises(Unavailable):
                await scrape_page(web, f"{site.url}/moody")
            with pytest.raises(RateLimited) as raised:
                await scrape_page(web, f"{site.url}/moody")
            assert raised.value.retry_after == 1
            page = await scrape_page(web, f"{site.url}/moody")
    assert page.title == "In a better mood now"
    assert "Patience is most of what a retry is." in page.text


async def test_pages_of_one_host_are_asked_for_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[tuple[str, float]] = []

    async def turn(_: Pace, host: str, seconds: float) -> None:
        turns.append((host, seconds))

    monkeypatch.setattr(Pace, "turn", turn)
    with DemoSite() as site:
        async with open_web_client(allow_private=True) as web:
            await scrape_page(web, f"{site.url}/")
            await scrape_page(web, f"{site.url}/", per_second=50)
            with pytest.raises(Rejected):
                await scrape_page(web, f"{site.url}/private/diary")
    assert turns == [("127.0.0.1", 1 / PAGES_PER_SECOND), ("127.0.0.1", 1 / 50)], "what is not asked for takes no turn"


async def test_a_page_that_robots_txt_forbids_is_not_scraped() -> None:
    with DemoSite() as site:
        async with open_web_client(allow_private=True) as web:
            with pytest.raises(Rejected, match=r"robots\.txt"):
                await scrape_page(web, f"{site.url}/private/diary")


async def test_a_page_that_is_not_there_is_rejected() -> None:
    with DemoSite() as site:
        async with open_web_client(allow_private=True) as web:
            with pytest.raises(Rejected, match="404"):
                await scrape_page(web, f"{site.url}/no-such-page")


# Title, description, text


def test_title_and_description_are_one_line_each() -> None:
    page = read("", "<title> A\n &amp;  B </title><meta name=Description content=' x \n y '>")
    assert (page.title, page.description) == ("A & B", "x y")


@pytest.mark.parametrize("first", ["og:description", "description"])
def test_the_description_for_search_comes_before_the_one_for_sharing(first: str) -> None:
    second = {"og:description": "description", "description": "og:description"}[first]
    head = "".join(f'<meta name="{name}" content="{name}">' for name in (first, second))
    assert read("", head).description == "description"
    assert read("", '<meta property="og:description" content="shared">').description == "shared"


def test_a_page_without_an_article_gives_the_text_of_its_body() -> None:
    page = read("<footer>Just <b>this</b><script>evil()</script><style>x{}</style><template>t</template></footer>")
    assert page.text == "Just this"


def test_html_that_says_nothing_gives_nothing() -> None:
    for html in ("", " ", "<!-- x -->", "<?php x ?>", "<html></html>", "<frameset><frame src=x></frameset>"):
        page = read_page(html, URL)
        assert page == PageContent(title="", description="", language="", text="", links=[])


def test_text_that_is_not_html_is_text() -> None:
    assert read_page("just text", URL).text == "just text"


# Links


def test_links_are_absolute_without_fragment_and_once_each() -> None:
    assert links("<a href=x>1</a><a href='/y#top'>2</a><a href='#here'>3</a><a href=/y>4</a><a href='a b?ü'>5</a>") == [
        "https://site.example/dir/x",
        "https://site.example/y",
        "https://site.example/dir/page",
        "https://site.example/dir/a%20b?ü",
    ]


def test_a_link_has_the_words_of_its_first_anchor() -> None:
    assert read("<a href=x> the <b>first</b>\n one</a><a href=x>another</a>").links[0].text == "the first one"


def test_links_start_from_the_base_of_the_page() -> None:
    assert links("<a href=x>x</a>", "<base href='/base/'>") == ["https://site.example/base/x"]
    assert links("<a href=x>x</a>", "<base href='https://other.example/'>") == ["https://other.example/x"]
    assert links("<a href=x>x</a>", "<base href='javascript:1'>") == ["https://site.example/dir/x"]


def test_what_cannot_be_fetched_is_no_link() -> None:
    assert not links(
        "<a href='javascript:alert(1)'>a</a><a href='mailto:a@b.example'>b</a><a href='file:///etc/passwd'>c</a>"
        "<a href='http://'>d</a><a href='http://[::1'>e</a><a href='http://x/\u202e'>f</a><a name=g>g</a>"
        f"<a href='http://x/{'a' * 2048}'>h</a>"
    )


# Bounds


def test_what_is_too_long_is_cut() -> None:
    page = read(
        "".join(f"<a href=/{n}>{n}</a>" for n in range(MAX_LINKS + 1)) + f"<p>{'word ' * MAX_TEXT}</p>",
        f"<title>{'t' * MAX_LINE * 2}</title><meta name=description content='{'d' * MAX_LINE * 2}'>",
    )
    assert (len(page.title), len(page.description), len(page.links)) == (MAX_LINE, MAX_LINE, MAX_LINKS)
    assert len(page.text) == MAX_TEXT


HOSTILE = {
    "deep": "<div>",
    "deep lists": "<ul><li>",
    "formatting": "<b x><i>",
    "tables": "<table>",
    "never closed": "<a href=x>",
    "comments": "<!--",
    "entities": "&amp",
    "attributes": "<p a=",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_page_made_to_hang_the_parser_is_read_in_bounded_time(piece: str) -> None:
    read_page(piece * (2 * MAX_HTML // len(piece)), URL)


PIECES = """
    <html> <a|href= 'x'> </a> <title> <meta|name=description|content= <base|href=//[ <p> \x00 \ud800 &#0; &#xD800; <svg>
    <?xml|encoding='x'?> <!-- <script> ]]> <p/
"""


@settings(deadline=None)
@given(html=st.lists(st.sampled_from([piece.replace("|", " ") for piece in PIECES.split()]) | st.text()).map("".join))
def test_whatever_comes_back_can_be_stored(html: str) -> None:
    stored = read_page(html, URL).model_dump_json()
    assert "\\u0000" not in stored
    assert stored.encode()
