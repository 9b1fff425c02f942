"""How the commands get their `Client`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.cli.client import Client


def connect() -> Client:
    """A client of the API that the settings name, to be entered with `async with`.

    Raises:
        ConfigurationError: a setting is not valid.
        Failure: RUNLEDGER_URL is not a URL.
    """
    from app.cli.client import Client
    from app.config import get_settings

    return Client(get_settings())
