"""A thread that watches the event loop: what blocks it blocks the heartbeat, too, and every other run."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import threading
import time

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.25
WARN_SECONDS = 2.0
EXIT_CODE = 75
"""`EX_TEMPFAIL`: start me again."""


class Watchdog:
    """Says which code blocks the event loop for 2 s, and ends the process after `limit` seconds.

    Whoever runs the process starts it again; other workers perform its runs when its lease is over.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._last_beat = time.monotonic()
        self._stopped = threading.Event()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the loop, from a thread of its own, until `stop`."""
        threading.Thread(target=self._watch, args=(loop,), name="watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        told = False
        last_look = time.monotonic()
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                loop.call_soon_threadsafe(self._beat)
            except RuntimeError:
                return  # the loop is closed
            now = time.monotonic()
            if now - last_look > WARN_SECONDS:
                # This thread did not run either: it is the process that was stopped, not its loop.
                self._last_beat = now
            last_look = now
            lag = now - self._last_beat
            if lag > self._limit:
                logger.critical("The event loop has been blocked for %.0f s: this process ends", lag)
                logging.shutdown()
                os._exit(EXIT_CODE)
            if lag > WARN_SECONDS and not told:
                logger.error("The event loop is blocked; the stack of each thread follows")
                faulthandler.dump_traceback()
            told = lag > WARN_SECONDS

    def _beat(self) -> None:
        self._last_beat = time.monotonic()
