"""Asking whether a page has changed: a real server on loopback that knows the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from tests.support.serving import serving

from app.errors import Rejected
from app.outbound.web.client import WebClient, open_web_client
from app.outbound.web.page import LONGEST_VALIDATOR, Page, Validators

DATE = "Tue, 24 Nov 2026 10:00:00 GMT"


@dataclass
class Site:
    """A page with validators at `/`, and redirects to it; and what was asked."""

    headers: dict[str, str] = field(default_factory=lambda: {"ETag": 'W/"1"', "Last-Modified": DATE})
    moved_to: str = "/"
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/", self.send), Route("/copy", self.send), Route("/moved", self.redirect)])

    def note(self, request: Request) -> None:
        asked = request.headers
        self.asked.append((request.url.path, asked.get("If-None-Match"), asked.get("If-Modified-Since")))

    async def send(self, request: Request) -> Response:
        self.note(request)
        asked = request.headers
        if "ETag" in self.headers and asked.get("If-None-Match") == self.headers["ETag"]:
            return Response(status_code=304)
        if asked.get("If-Modified-Since") and asked["If-Modified-Since"] == self.headers.get("Last-Modified"):
            return Response(status_code=304)
        return HTMLResponse("<p>News", headers=self.headers)

    async def redirect(self, request: Request) -> Response:
        self.note(request)
        return RedirectResponse(self.moved_to)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
async def url(site: Site) -> AsyncIterator[str]:
    async with serving(site.app()) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def web() -> AsyncIterator[WebClient]:
    async with open_web_client(allow_private=True) as web:
        yield web


async def first(web: WebClient, url: str) -> Page:
    page = await web.fetch_if_changed(url, None)
    assert page is not None
    return page


async def test_a_page_that_has_not_changed_is_not_sent_again(web: WebClient, site: Site, url: str) -> None:
    page = await first(web, f"{url}/")
    assert page.validators == Validators(f"{url}/", 'W/"1"', DATE)
    assert await web.fetch_if_changed(f"{url}/", page.validators) is None
    assert site.asked == [("/", None, None), ("/", 'W/"1"', DATE)]


async def test_a_page_that_has_changed_is_sent(web: WebClient, site: Site, url: str) -> None:
    page = await first(web, f"{url}/")
    site.headers = {"ETag": '"2"'}
    changed = await web.fetch_if_changed(f"{url}/", page.validators)
    assert changed is not None
    assert (changed.text, changed.validators) == ("<p>News", Validators(f"{url}/", '"2"', None))


async def test_a_date_alone_is_enough(web: WebClient, site: Site, url: str) -> None:
    site.headers = {"Last-Modified": DATE}
    page = await first(web, f"{url}/")
    assert await web.fetch_if_changed(f"{url}/", page.validators) is None


async def test_what_came_after_a_redirect_is_told_where_it_came_from_and_nowhere_else(
    web: WebClient, site: Site, url: str
) -> None:
    page = await first(web, f"{url}/moved")
    site.asked.clear()
    assert await web.fetch_if_changed(f"{url}/moved", page.validators) is None
    assert site.asked == [("/moved", None, None), ("/", 'W/"1"', DATE)]
    site.moved_to = "/copy"
    assert await web.fetch_if_changed(f"{url}/moved", page.validators) is not None
    assert site.asked[-1] == ("/copy", None, None)


@pytest.mark.parametrize("known", [None, Validators("", None, None)])
async def test_a_304_that_nobody_has_asked_for_is_no_answer(web: WebClient, known: Validators | None) -> None:
    async def never_changes(request: Request) -> Response:
        return Response(status_code=304)

    async with serving(Starlette(routes=[Route("/", never_changes)])) as port:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(Rejected, match="answered 304"):
            await web.fetch_if_changed(url, known and replace(known, url=url))


@pytest.mark.parametrize("etag", ["", "é", "a\tb", "x" * (LONGEST_VALIDATOR + 1)])
async def test_what_cannot_be_sent_back_is_not_kept(web: WebClient, site: Site, url: str, etag: str) -> None:
    site.headers = {"ETag": etag}
    page = await first(web, f"{url}/")
    assert page.validators == Validators(f"{url}/", None, None)
    assert await web.fetch_if_changed(f"{url}/", page.validators) is not None
