"""A news site on loopback: feeds with an `ETag`, articles, and a count of what it was asked."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class NewsSite:
    """What it says is in `feeds`: the numbers of the articles of each, by name.

    By path, `broken` has statuses, and `says` what is said instead of a feed.
    """

    def __init__(self, **feeds: list[int]) -> None:
        self.feeds = feeds
        self.broken: dict[str, int] = {}
        self.says: dict[str, bytes] = {}
        self.asked = Counter[tuple[str, int]]()
        """Paths, and what was answered."""
        self.url = ""

    def feed(self, name: str) -> str:
        return f"{self.url}/{name}.xml"

    def answer(self, path: str, etag: str | None) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        status, kind, body = self._answer(path)
        if status == 200 and etag == etag_of(body):
            status, body = 304, b""
        self.asked[path, status] += 1
        return status, kind, body

    def times(self, path: str) -> int:
        """How often a path was asked for, whatever was answered."""
        return sum(count for (asked, _), count in self.asked.items() if asked == path)

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        name = path.strip("/").removesuffix(".xml")
        if path in self.broken:
            return self.broken[path], "text/plain", b"No."
        if name in self.feeds:
            return 200, "application/rss+xml", self.says.get(path) or self._feed(name).encode()
        if path.startswith("/article/"):
            return 200, "text/html", article(path.rpartition("/")[2]).encode()
        return 404, "text/plain", b"Not here."

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


def etag_of(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:8]}"'


@contextmanager
def news_site(**feeds: list[int]) -> Iterator[NewsSite]:
    """A site with these feeds, in threads of its own."""
    site = NewsSite(**feeds)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = site.answer(self.path, self.headers.get("If-None-Match"))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if status in (200, 304):
                self.send_header("ETag", self.headers.get("If-None-Match") if status == 304 else etag_of(body))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
