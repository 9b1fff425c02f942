"""These tests drive containers; docker-compose.test.yml says how to start them, and they skip where there are none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.compose.stack import Stack, docker


@pytest.fixture(scope="session")
def compose() -> None:
    """Docker Compose, which reads compose files without an engine."""
    try:
        docker("compose", "version")
    except (OSError, AssertionError) as reason:
        pytest.skip(f"there is no Docker Compose: {reason}")


@pytest.fixture(scope="session")
def stack(compose: None) -> Iterator[Stack]:
    """The running test stack."""
    stack = Stack()
    try:
        running = stack.compose("ps", "--services", "--status=running").split()
    except AssertionError as reason:
        pytest.skip(f"there is no Docker engine: {reason}")
    if not {"db", "api", "worker"} <= set(running):
        pytest.skip("the stack is not up: docker compose -f docker-compose.test.yml up --build --wait -d")
    yield stack
    stack.api.close()
