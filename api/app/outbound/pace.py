"""When each service or site may be asked next, by all runs of a worker together."""

from __future__ import annotations

import asyncio

REMEMBERED = 1000
"""Sites. Beyond that, those whose time has come are forgotten."""


class Pace:
    """Hands out turns, one site's at least so many seconds apart."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    async def turn(self, site: str, seconds: float) -> None:
        """Wait until it is the caller's turn; the next one comes `seconds` later."""
        now = asyncio.get_running_loop().time()
        begin = max(now, self._next.get(site, now))
        if len(self._next) >= REMEMBERED:
            self._next = {site: at for site, at in self._next.items() if at > now}
        self._next[site] = begin + seconds
        if begin > now:
            await asyncio.sleep(begin - now)
