"""What a site asks of robots, in its robots.txt (RFC 9309), kept for a day."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urljoin, urlsplit

from protego import Protego

from app.errors import Rejected

ROBOT = "Runledger"
KEPT_SECONDS = 24 * 3600.0
KEPT_SITES = 100
LONGEST_DELAY_SECONDS = 60.0


class Robots:
    """The rules of the sites that were asked last.

    `read` is given the URL of a robots.txt and returns its text, empty if there is none; what it raises is
    passed on, and not kept. `now` is in seconds.
    """

    def __init__(self, read: Callable[[str], Awaitable[str]], now: Callable[[], float]) -> None:
        self._read = read
        self._now = now
        self._kept: dict[str, tuple[float, Protego]] = {}

    async def check(self, url: str) -> None:
        """Return if the site allows us to fetch `url`.

        Raises:
            Rejected: it does not.
        """
        rules = await self._rules(urljoin(url, "/robots.txt"))
        if not rules.can_fetch(url, ROBOT):
            site = urlsplit(url).hostname
            raise Rejected(f"The robots.txt of {site} does not allow this URL to be fetched. Give another URL.")

    async def delay(self, url: str) -> float:
        """The seconds that the site asks to be left between two requests, up to a minute."""
        rules = await self._rules(urljoin(url, "/robots.txt"))
        return min(rules.crawl_delay(ROBOT) or 0.0, LONGEST_DELAY_SECONDS)

    async def _rules(self, robots_url: str) -> Protego:
        since, rules = self._kept.get(robots_url, (0.0, None))
        if rules is None or self._now() - since >= KEPT_SECONDS:
            rules = await asyncio.to_thread(Protego.parse, await self._read(robots_url))
            self._keep(robots_url, rules)
        return rules

    def _keep(self, robots_url: str, rules: Protego) -> None:
        self._kept.pop(robots_url, None)
        self._kept[robots_url] = (self._now(), rules)
        if len(self._kept) > KEPT_SITES:
            del self._kept[next(iter(self._kept))]
