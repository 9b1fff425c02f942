"""What is read out of feeds, honest, broken and hostile."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.digest.feeds import MAX_ARTICLES, MAX_SUMMARY, Feed, parse, read_feed
from app.errors import Rejected
from app.outbound.web.page import Page, Validators

URL = "https://news.example.com/feeds/all.xml"
NOW = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)


def read(data: str | bytes) -> Feed:
    feed = parse(data.encode() if isinstance(data, str) else data, url=URL, now=NOW)
    assert feed is not None
    return feed


def rss(*items: str) -> str:
    inside = "".join(f"<item>{item}</item>" for item in items)
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>The News</title>{inside}</channel></rss>'


def item(link: str = "/a", title: str = "A", more: str = "") -> str:
    return f"<title>{title}</title><link>{link}</link>{more}"


def page(body: bytes) -> Page:
    return Page(URL, 200, "application/rss+xml", "utf-8", body, Validators(URL, None, None))


def test_an_article_has_what_the_feed_says_of_it() -> None:
    date = "<pubDate>Tue, 24 Nov 2026 10:00:00 +0200</pubDate><description>&lt;p&gt;Soon &amp;amp; late</description>"
    [article] = read(rss(item("../x?b=1&amp;a=2", "AT&amp;amp;T <b>grows</b>", date))).articles
    assert article.link == "https://news.example.com/x?b=1&a=2"
    assert (article.title, article.summary, article.source) == ("AT&T grows", "Soon & late", "The News")
    assert article.published == datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def test_atom_is_read_as_rss_is() -> None:
    feed = read(
        '<feed xmlns="http://www.w3.org/2005/Atom" xml:base="https://other.example/"><title>Atoms</title><entry>'
        '<title type="html">x &amp;lt; y</title><link href="p/1"/><updated>2026-11-24T10:00:00Z</updated>'
        '<content type="html">&lt;script>alert(1)&lt;/script>&lt;i>Hello&lt;/i></content></entry></feed>'
    )
    [article] = feed.articles
    assert (article.link, article.title, article.summary) == ("https://other.example/p/1", "x < y", "Hello")


def test_the_newest_come_first_and_what_has_no_date_keeps_its_place_behind_them() -> None:
    feed = read(
        rss(
            item("/undated-1"),
            item("/old", more="<pubDate>Mon, 23 Nov 2026 00:00:00 GMT</pubDate>"),
            item("/undated-2", more="<pubDate>yesterday</pubDate>"),
            item("/new", more="<pubDate>Tue, 24 Nov 2026 00:00:00 GMT</pubDate>"),
            item("/future", more="<pubDate>Mon, 01 Jan 2035 00:00:00 GMT</pubDate>"),
        )
    )
    order = [article.link.rpartition("/")[2] for article in feed.articles]
    assert order == ["new", "old", "undated-1", "undated-2", "future"]
    assert [article.published is None for article in feed.articles] == [False, False, True, True, True]


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "mailto:a@b.c",
        "",
        "http://a:b/",
        "http://[::1/",
    ],
)
def test_what_leads_nowhere_that_can_be_fetched_is_left_out(link: str) -> None:
    assert [article.title for article in read(rss(item(link), item("/b", "B"))).articles] == ["B"]


def test_the_same_link_is_one_article_whatever_its_spelling_and_its_guid() -> None:
    guid = "<guid isPermaLink='false'>always the same</guid>"
    feed = read(rss(item("/a?x=1&amp;y=2", more=guid), item("/a?y=2&amp;x=1#top"), item("/b", more=guid)))
    assert [article.link.rpartition("/")[2] for article in feed.articles] == ["a?x=1&y=2", "b"]


@pytest.mark.parametrize(
    "broken",
    [
        rss(item()).removesuffix("</channel></rss>"),
        rss(item(title="A &nope; B")),
        "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>" + rss(item()).partition("?>")[2],
    ],
    ids=["cut", "entity", "doctype"],
)
def test_a_feed_that_is_broken_is_read_as_far_as_it_goes(broken: str) -> None:
    [article] = read(broken).articles
    assert article.link == "https://news.example.com/a"
    assert "root:" not in article.model_dump_json()


def test_a_feed_is_read_in_the_encoding_that_it_declares() -> None:
    data = rss(item(title="Grün")).replace('"1.0"', '"1.0" encoding="iso-8859-1"').encode("latin-1")
    assert read(data).articles[0].title == "Grün"


def test_what_is_no_text_is_left_out_and_what_is_too_long_is_cut() -> None:
    title = "A\x1bB\n C" + "x" * 5000
    [article] = read(rss(item(title=title, more=f"<description>{'y' * 5000}</description>"))).articles
    assert article.title.startswith("AB Cxxx")
    assert (len(article.title), len(article.summary)) == (300, MAX_SUMMARY)


def test_an_endless_feed_ends() -> None:
    assert len(read(rss(*(item(f"/{n}") for n in range(MAX_ARTICLES + 50)))).articles) == MAX_ARTICLES


def test_a_billion_laughs_are_not_laughed() -> None:
    entities = "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    bomb = f'<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY a "haha">{entities}]>' + rss(item(title="&j;"))[21:]
    [article] = read(bomb).articles
    assert len(article.title) < 300


@pytest.mark.parametrize("data", [b"", b"<html><body>Welcome", b"GIF89a", b'{"version": "1"}', b"\x00\xff\xfe"])
async def test_what_is_no_feed_is_refused(data: bytes) -> None:
    with pytest.raises(Rejected, match=r"news\.example\.com sent neither RSS nor Atom"):
        await read_feed(page(data))


def test_a_feed_that_is_the_name_of_a_file_is_not_that_file(tmp_path: Path) -> None:
    file = tmp_path / "feed"
    file.write_text(rss(item()))
    assert parse(bytes(file), url=URL, now=NOW) is None


async def test_a_feed_is_read_in_a_child_process() -> None:
    assert [article.title for article in (await read_feed(page(rss(item()).encode()))).articles] == ["A"]


@settings(deadline=None, max_examples=50)
@given(title=st.text(), link=st.text(), date=st.text())
def test_no_text_can_surprise_the_reader(title: str, link: str, date: str) -> None:
    for data in (rss(item(escape(link), escape(title), f"<pubDate>{escape(date)}</pubDate>")), rss(link + title)):
        parse(data.encode("utf-8", "surrogatepass"), url=URL, now=NOW)
