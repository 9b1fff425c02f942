"""`runledger api`: one process, as a service manager would start it."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.address import require_free

GRACE_SECONDS = 5
"""How long requests may go on after SIGTERM; streams end at once, and are resumed elsewhere."""


def api(
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Instead of PORT; 0: any that is free.")] = None,
    bind: Annotated[
        str | None, typer.Option(help="Instead of HOST; in a container HOST says where it is published.")
    ] = None,
) -> None:
    """Serve the API on HOST and PORT."""
    from app.config import get_settings

    settings = get_settings()
    host = bind or settings.host
    serve("app.main:create_app", host, require_free(host, settings.port if port is None else port))


def serve(factory: str, host: str, port: int) -> None:
    """Serve an app until told to stop: the one place that says how.

    Args:
        factory: where the function is that makes it, such as `app.main:create_app`.
    """
    import uvicorn

    from app.config import get_settings
    from app.routers.transport import StrictHttpProtocol

    uvicorn.run(
        factory,
        factory=True,
        host=host,
        port=port,
        loop="uvloop",
        http=StrictHttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nobody else tells from where a request comes.
        forwarded_allow_ips=list(get_settings().forwarded_allow_ips),
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
