"""The contract with a service is one, whether it is played or, by `make live`, called."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.live.conftest import IS_LIVE
from tests.live.contracts import CONTRACTS, Contract

from app.config import Settings
from app.outbound.clients import open_clients


async def test_a_service_keeps_its_promise(service: str, tmp_path: Path) -> None:
    contract = CONTRACTS[service]
    async with contextlib.AsyncExitStack() as stack:
        settings = called(contract, tmp_path) if IS_LIVE else played(contract, tmp_path, stack)
        clients = await stack.enter_async_context(open_clients(settings))
        await contract.promise(clients, settings)


def called(contract: Contract, folder: Path) -> Settings:
    return Settings(environment="test", stub_generation=False, data_dir=folder, **contract.chosen)


def played(contract: Contract, folder: Path, stack: contextlib.AsyncExitStack) -> Settings:
    given = contract.chosen | contract.played(stack)
    return Settings(_env_file=None, environment="test", data_dir=folder, **given)
