"""The mail of a digest."""

from __future__ import annotations

from datetime import UTC, date, datetime

from app.domain.digest.letter import compose
from app.domain.digest.models import Digest, FeedReport, Item

HOSTILE = '"><script>alert(1)</script>&amp;'


def digest(**changed: object) -> Digest:
    item = Item(
        title="The lamp",
        link="https://a.example/1?a=1&b=2",
        source="News",
        published=datetime(2026, 11, 24, 23, tzinfo=UTC),
        summary="It is new.",
    )
    made = Digest(night=date(2026, 11, 25), outcome="made", title="Light", summary="One thing.", items=[item])
    return made.model_copy(update=changed)


def test_both_forms_tell_everything() -> None:
    mail = compose(digest(), ["ada@example.com"])
    assert (mail.to, mail.subject) == (["ada@example.com"], "Light (2026-11-25)")
    assert mail.html is not None
    for told in ("Light", "One thing.", "The lamp", "It is new.", "News, 2026-11-24"):
        assert told in mail.text
        assert told in mail.html
    assert "https://a.example/1?a=1&b=2" in mail.text
    assert '<a href="https://a.example/1?a=1&amp;b=2">' in mail.html


def test_nothing_that_strangers_wrote_is_markup() -> None:
    item = Item(title=HOSTILE, link=f"https://a.example/{HOSTILE}", source=HOSTILE, published=None, summary=HOSTILE)
    feed = FeedReport(url="https://b.example/", articles=0, problem=HOSTILE)
    mail = compose(digest(title=HOSTILE, summary=HOSTILE, items=[item], feeds=[feed]), ["ada@example.com"])
    assert mail.html is not None
    assert "<script" not in mail.html
    assert mail.html.count('"') == 4, "of charset and of one href"


def test_a_title_cannot_begin_another_header() -> None:
    made = Digest.model_validate({**digest().model_dump(), "title": "Light\r\nBcc: bob@example.com\x00" + "x" * 500})
    subject = compose(made, ["ada@example.com"]).subject
    assert subject.startswith("Light Bcc: bob@example.comx")
    assert len(subject) <= 200


def test_the_reader_hears_what_is_missing() -> None:
    feed = FeedReport(url="https://b.example/feed?token=s3cret", articles=0, problem="b.example answered 503.")
    mail = compose(digest(feeds=[feed], passed_over=3), ["ada@example.com"])
    assert "A feed of b.example is missing: b.example answered 503." in mail.text
    assert "There were 3 more new articles than fit." in mail.text
    assert "s3cret" not in mail.text
