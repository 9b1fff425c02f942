"""Readers of files that behave as a hostile file makes them."""

from __future__ import annotations

import os
import time


def die(_: bytes) -> int:
    os._exit(1)


def hang(_: bytes) -> int:
    time.sleep(600)
    return 0


def eat(_: bytes) -> int:
    return len(bytearray(4 * 1024**3))


def measure(data: bytes) -> int:
    return len(data)
