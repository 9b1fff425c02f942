"""A site of many pages on loopback that counts its visitors.

::

    with CountingSite(200) as site:
        ...  # site.url is something like http://127.0.0.1:40123; site.visits counts by path

`/page/0` is where it begins; each page has a word that no other has, and leads to ten more. `/robots.txt` forbids
`/page/forbidden`, which every page leads to, as to `/page/missing`, which is not there. Pages in `site.broken` are
answered by 500.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Container
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

ROBOTS = "User-agent: *\nDisallow: /page/forbidden\n"
FANOUT = 10


class CountingSite:
    """Serves from entering to leaving the context, on a free port, in threads of its own."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.visits = Counter[str]()
        self.broken: Container[str] = ()
        """Paths."""

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.site = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where the site is, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def start(self) -> str:
        """The page from which all others can be reached."""
        return f"{self.url}/page/0"

    def answer(self, path: str) -> tuple[int, str, str]:
        """Status, content type and body; the visit is counted."""
        self.visits[path] += 1
        if path == "/robots.txt":
            return 200, "text/plain", ROBOTS
        if path in self.broken:
            return 500, "text/plain", "Not now."
        number = path.removeprefix("/page/")
        if not number.isdigit() or int(number) >= self.pages:
            return 404, "text/plain", "Not here."
        return 200, "text/html; charset=utf-8", self._page(int(number))

    def _page(self, number: int) -> str:
        children = range(FANOUT * number + 1, min(FANOUT * number + FANOUT, self.pages - 1) + 1)
        targets = ["forbidden", "missing", "0#top", *map(str, children)]
        links = " ".join(f'<a href="/page/{target}">{target}</a>' for target in targets)
        return (
            f"<!doctype html><html lang=en><head><title>Page {number}</title></head>"
            f"<body><article><p>This is page {number} of a long book, and its word is {word(number)}.</p></article>"
            f"<nav>{links}</nav></body></html>"
        )


def word(number: int) -> str:
    """A word that only this page has: `lighthouse7`."""
    return f"lighthouse{number}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    site: CountingSite

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor who was killed on the way is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - it is made by this one

    def do_GET(self) -> None:
        status, content_type, text = self.server.site.answer(self.path)
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Whoever made it counts."""
