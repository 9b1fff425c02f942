"""Where the API listens, and how it is reached."""

from __future__ import annotations

import errno
import socket

from app.cli.failure import Failure

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a bind to all is reached by
LAST_PORT = 65535


def url_of(host: str, port: int) -> str:
    """The URL by which this machine reaches what is bound to `host` and `port`."""
    name = _EVERYWHERE.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def require_free(host: str, port: int) -> int:
    """The port to listen on: `port` itself, or for 0 one that is free now.

    Raises:
        Failure: somebody else listens there, or the address is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _refused(host, port, error) from None
        return probe.getsockname()[1]


def next_free(host: str, port: int) -> int:
    """The first free port after `port`.

    Raises:
        Failure: there is none.
    """
    for candidate in range(port + 1, LAST_PORT + 1):
        if is_free(host, candidate):
            return candidate
    raise Failure(f"No port after {port} is free on {host}.")


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    try:
        require_free(host, port)
    except Failure:
        return False
    return True


def _refused(host: str, port: int, error: OSError) -> Failure:
    if error.errno == errno.EADDRINUSE:
        return Failure(
            f"Port {port} on {host} is taken.", f"Choose another with PORT={port + 1 if port < LAST_PORT else port - 1} before the command."
        )
    return Failure(f"Cannot listen on {host}, port {port}: {error.strerror or error}.", "Set HOST and PORT.")
