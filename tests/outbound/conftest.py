"""Stubs on a socket, and a client's settings: without keys, as everybody begins."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.config import Settings
from app.outbound.clients import STUBS
from app.outbound.stubs import Stubs


@pytest.fixture
def keyless() -> Settings:
    return Settings(_env_file=None, environment="test", stub_generation=None)


@pytest.fixture
async def stubs() -> AsyncIterator[Stubs]:
    stubs = Stubs(STUBS)
    yield stubs
    await stubs.aclose()
