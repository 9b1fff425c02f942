"""A news site on loopback: feeds with an `ETag`, articles, and a count of what it was asked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

from scripts.sites import HTML, TEXT, Answer, Site

RSS = "application/rss+xml"


class NewsSite(Site):
    """What it says is in `feeds`: the numbers of the articles of each, by name.

    By path, `broken` has statuses, and `says` what is said instead of a feed.
    """

    def __init__(self, **feeds: list[int]) -> None:
        self.feeds = feeds
        self.broken: dict[str, int] = {}
        self.says: dict[str, str] = {}
        self.asked = Counter[tuple[str, int]]()
        """Paths, and what was answered."""

    def feed(self, name: str) -> str:
        return f"{self.url}/{name}.xml"

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        answer = self._answer(path)
        if answer.status == 200:
            etag = etag_of(answer.body)
            answer = answer._replace(headers={"ETag": etag})
            if headers.get("If-None-Match") == etag:
                answer = answer._replace(status=304, body="")
        self.asked[path, answer.status] += 1
        return answer

    def times(self, path: str) -> int:
        """How often a path was asked for, whatever was answered."""
        return sum(count for (asked, _), count in self.asked.items() if asked == path)

    def _answer(self, path: str) -> Answer:
        name = path.strip("/").removesuffix(".xml")
        if path in self.broken:
            return Answer(self.broken[path], TEXT, "No.")
        if name in self.feeds:
            return Answer(200, RSS, self.says.get(path) or self._feed(name))
        if path.startswith("/article/"):
            return Answer(200, HTML, article(path.rpartition("/")[2]))
        return Answer(404, TEXT, "Not here.")

    def _feed(self, name: str) -> str:
        items = "".join(
            f"<item><title>Article {n}</title><link>/article/{n}</link><description>About {n}.</description>"
            f"<pubDate>Tue, 24 Nov 2026 {n % 24:02}:00:00 GMT</pubDate></item>"
            for n in self.feeds[name]
        )
        return f"<rss version='2.0'><channel><title>The {name}</title>{items}</channel></rss>"


def article(number: str) -> str:
    return (
        f"<html><head><title>{number}</title></head><body><article><p>This is what article {number} says, and it says "
        "it at some length, because a short text is easily taken for no text at all.</p></article></body></html>"
    )


def etag_of(body: str) -> str:
    return f'"{hashlib.sha256(body.encode()).hexdigest()[:8]}"'
