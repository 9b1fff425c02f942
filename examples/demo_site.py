"""A small site on loopback, to scrape without leaving the machine.

::

    with DemoSite() as site:
        ...  # site.url is something like http://127.0.0.1:40123

`/` is an article, `/robots.txt` allows everything but `/private/`, and `/moody` says 503 twice before it answers.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import ClassVar, Self

ARTICLE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>How lighthouses learned to blink</title>
  <meta name="description" content="Why every lighthouse has a rhythm of its own, and who thought of it.">
</head>
<body>
  <nav><a href="/">Home</a> <a href="/moody">A page with moods</a></nav>
  <article>
    <h1>How lighthouses learned to blink</h1>
    <p>For most of history a lighthouse was a fire on a tower. It burned all night, it burned the same way on every
    coast, and that was its weakness: a sailor who saw a light at last did not know which one he saw.</p>
    <p>Augustin Fresnel gave the light its reach. In 1823 his lens of glass rings stood in the tower of Cordouan, off
    the mouth of the Gironde, and threw the flame of a single lamp beyond the horizon.</p>
    <p>The rhythm came from clockwork. A weight sank slowly through the tower and turned the lens, so that its beams
    swept over the sea, and whoever counted the seconds between two flashes could look the tower up in a list. Keepers
    wound the weight again every few hours, through the whole night, for more than a hundred years.</p>
    <p>Today the lamps are small and nobody winds anything, but the lists are still printed, and no two neighbouring
    lights blink alike. Read more about <a href="https://en.wikipedia.org/wiki/Fresnel_lens">Fresnel's lens</a>
    or about the <a href="https://en.wikipedia.org/wiki/Cordouan_Lighthouse">tower of Cordouan</a>.</p>
  </article>
  <footer><p>A demonstration page. <a href="/robots.txt">robots.txt</a></p></footer>
</body>
</html>
"""

MOODY = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>In a better mood now</title>
  <meta name="description" content="A page that only answers those who ask three times.">
</head>
<body>
  <article>
    <h1>In a better mood now</h1>
    <p>This page was not available the first two times it was asked for. Whoever reads it has asked at least three
    times, and waited in between, as the page had asked them to. Patience is most of what a retry is.</p>
    <p><a href="/">Back to the lighthouses</a></p>
  </article>
</body>
</html>
"""

ROBOTS = """User-agent: *
Disallow: /private/
"""


class DemoSite:
    """Serves from entering to leaving the context, on a free port, in a thread of its own."""

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
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


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.moods: Iterator[int] = itertools.chain((503, 503), itertools.repeat(200))

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor who was killed on the way is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - it is made by this one
    pages: ClassVar[dict[str, tuple[str, str]]] = {
        "/": ("text/html; charset=utf-8", ARTICLE),
        "/moody": ("text/html; charset=utf-8", MOODY),
        "/robots.txt": ("text/plain; charset=utf-8", ROBOTS),
    }

    def do_GET(self) -> None:
        page = self.pages.get(self.path)
        if page is None:
            self.send_error(404)
        elif self.path == "/moody" and next(self.server.moods) == 503:
            self._answer(503, "text/plain", "Not now.", {"Retry-After": "1"})
        else:
            self._answer(200, *page)

    def _answer(self, status: int, content_type: str, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The demo has its own story to tell."""
