"""How many event streams a principal keeps open: each holds a connection and memory of this process."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator

from app.access.principal import LOCAL, Principal
from app.errors import QuotaExceeded


class Streams:
    """Counts the open streams of one API process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def one_more(self, principal: Principal) -> Generator[None]:
        """Count a stream as open while the block lasts.

        Raises:
            QuotaExceeded: the principal has as many as it may.
        """
        if principal is LOCAL:
            yield
            return
        if self._open[principal.actor] >= self._limit:
            raise QuotaExceeded(
                detail=f"You have {self._limit} streams open. Close some.", quota="open_streams", limit=self._limit
            )
        self._open[principal.actor] += 1
        try:
            yield
        finally:
            self._open[principal.actor] -= 1
            if not self._open[principal.actor]:
                del self._open[principal.actor]
