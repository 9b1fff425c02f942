"""`LIVE=on` holds the contracts against the services themselves, if their keys are set in the environment or `.env`.

Of the others there is no test, green or skipped: they are named at the end. Without `LIVE`, what plays them is tested.
"""

from __future__ import annotations

import os

import pytest
from tests.live.contracts import CONTRACTS

from app.config import Settings

IS_LIVE = os.environ.get("LIVE") == "on"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "service" in metafunc.fixturenames:
        metafunc.parametrize("service", CONTRACTS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lacking = missing() if IS_LIVE else {}
    without_key = [item for item in items if service_of(item) in lacking]
    config.hook.pytest_deselected(items=without_key)
    items[:] = [item for item in items if item not in without_key]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, lacks in (missing() if IS_LIVE else {}).items():
        terminalreporter.line(f"{name} was not called: set {', '.join(lacks)}")


def service_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return callspec and callspec.params.get("service")


def missing() -> dict[str, list[str]]:
    """What each service that cannot be called lacks."""
    settings = Settings()
    return {name: lacks for name, contract in CONTRACTS.items() if (lacks := contract.missing(settings))}
