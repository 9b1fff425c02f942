"""The mail of a digest, as text and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.domain.digest.models import Digest, Item
from app.domain.mail.message import Mail
from app.domain.scraping.address import site_of

LONGEST_TITLE = 180


def compose(digest: Digest, to: Sequence[str]) -> Mail:
    """The mail that tells these readers the digest."""
    return Mail(
        to=[*to],
        subject=f"{digest.title[:LONGEST_TITLE]} ({digest.night})",
        text=_text(digest),
        html=_html(digest),
    )


def _text(digest: Digest) -> str:
    items = [f"* {item.title}\n  {item.summary}\n  {_origin(item)}\n  {item.link}" for item in digest.items]
    return "\n\n".join([digest.title, digest.summary, *items, *_notes(digest)]) + "\n"


def _html(digest: Digest) -> str:
    # What it says was written by strangers: nothing of it is markup.
    items = "".join(
        f'<h2><a href="{escape(item.link)}">{escape(item.title)}</a></h2>'
        f"<p>{escape(item.summary)}</p><p><small>{escape(_origin(item))}</small></p>"
        for item in digest.items
    )
    notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in _notes(digest))
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{escape(digest.title)}</title></head>'
        f"<body><h1>{escape(digest.title)}</h1><p>{escape(digest.summary)}</p>{items}{notes}</body></html>"
    )


def _origin(item: Item) -> str:
    return f"{item.source}, {item.published:%Y-%m-%d}" if item.published else item.source


def _notes(digest: Digest) -> list[str]:
    """What the reader should know of what is not in it."""
    passed_over = [f"There were {digest.passed_over} more new articles than fit."] if digest.passed_over else []
    return passed_over + [
        f"A feed of {site_of(feed.url)} is missing: {feed.problem}" for feed in digest.feeds if feed.problem
    ]
