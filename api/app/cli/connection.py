"""How the commands get their client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.cli.failure import Failure

if TYPE_CHECKING:
    from runledger_client import Client


def connect(url: str | None = None) -> Client:
    """A client of the API at `url`, or else where the settings say it is, to be entered with `async with`.

    Raises:
        ConfigurationError: a setting is not valid.
        Failure: RUNLEDGER_URL is not a URL.
    """
    from app.cli.address import url_of
    from app.config import get_settings
    from runledger_client import Client

    settings = get_settings()
    secret = settings.roadmap_ai_secret
    try:
        return Client(
            url or settings.runledger_url or url_of(settings.host, settings.port),
            secret=secret.get_secret_value() if secret else None,
        )
    except ValueError:
        raise Failure("RUNLEDGER_URL is not a URL.", "Set it like http://127.0.0.1:8000") from None
