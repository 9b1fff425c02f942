"""Sites on loopback, to read without leaving the machine.

::

    with DemoSite() as site:
        ...  # site.url is something like http://127.0.0.1:40123
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self

HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

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
    <p>This page was not available the first two times it was asked for: first it was down, then it asked for a moment
    of patience, which uses no attempt. Whoever reads it has waited in between. Patience is most of what a retry is.</p>
    <p><a href="/">Back to the lighthouses</a></p>
  </article>
</body>
</html>
"""


class Answer(NamedTuple):
    """What a site answers."""

    status: int
    content_type: str
    body: str
    headers: Mapping[str, str] = {}


BROKEN = Answer(500, TEXT, "Not now.")
PATIENCE = Answer(503, TEXT, "Not now.", {"Retry-After": "1"})
BUSY = Answer(503, TEXT, "Not now.", {"Retry-After": "0"})


class Site(ABC):
    """Serves from entering to leaving the context, on a free port, in threads of its own."""

    @abstractmethod
    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        """What to answer to a GET."""

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": self}))
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


class DemoSite(Site):
    """`/` is an article, `/robots.txt` forbids `/private/`, and `/moody` is down once, then busy once, then there."""

    def __init__(self) -> None:
        self._moods = itertools.chain((BROKEN, PATIENCE), itertools.repeat(Answer(200, HTML, MOODY)))

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:  # noqa: ARG002 - whoever asks
        match path:
            case "/":
                return Answer(200, HTML, ARTICLE)
            case "/robots.txt":
                return Answer(200, TEXT, "User-agent: *\nDisallow: /private/\n")
            case "/moody":
                return next(self._moods)
            case _:
                return Answer(404, TEXT, "Not here.")


class CountingSite(Site):
    """A site of many pages that counts its visitors, by path, in `visits`.

    `/page/0` is where it begins; each page has a word that no other has, and leads to ten more. `/robots.txt` forbids
    `/page/forbidden`, which every page leads to, as to `/page/missing`, which is not there. `instead` says
    of some paths what is answered in place of the page.
    """

    FANOUT = 10

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.visits = Counter[str]()
        self.instead: Mapping[str, Answer] = {}

    @property
    def start(self) -> str:
        """The page from which all others can be reached."""
        return f"{self.url}/page/0"

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:  # noqa: ARG002 - whoever asks
        self.visits[path] += 1
        if path == "/robots.txt":
            return Answer(200, TEXT, "User-agent: *\nDisallow: /page/forbidden\n")
        if path in self.instead:
            return self.instead[path]
        number = path.removeprefix("/page/")
        if not number.isdigit() or int(number) >= self.pages:
            return Answer(404, TEXT, "Not here.")
        return Answer(200, HTML, self._page(int(number)))

    def _page(self, number: int) -> str:
        children = range(self.FANOUT * number + 1, min(self.FANOUT * number + self.FANOUT, self.pages - 1) + 1)
        targets = ["forbidden", "missing", "0#top", *map(str, children)]
        links = " ".join(f'<a href="/page/{target}">{target}</a>' for target in targets)
        return (
            f"<!doctype html><html lang=en><head><title>Page {number}</title></head>"
            f"<body><article><p>This is page {number} of a long book, and its word is lighthouse{number}.</p></article>"
            f"<nav>{links}</nav></body></html>"
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor who was killed on the way is no news."""


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        answer = self.site.answer(self.path, self.headers)
        body = answer.body.encode()
        self.send_response(answer.status)
        told = {"Content-Type": answer.content_type, "Content-Length": str(len(body)), **answer.headers}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Whoever made it has a story of its own to tell."""
