"""Where the API listens, and how it is reached."""

from __future__ import annotations

import contextlib
import errno
import socket

from app.cli.failure import Failure

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a bind to all is reached by
LAST_PORT = 65535


class PortTaken(Failure):
    """Somebody else listens there."""


def url_of(host: str, port: int) -> str:
    """The URL by which this machine reaches what is bound to `host` and `port`."""
    name = _EVERYWHERE.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def require_free(host: str, port: int) -> int:
    """The port to listen on: `port` itself, or for 0 one that is free now.

    Raises:
        PortTaken: somebody else listens there.
        Failure: the address is not one of this machine's, or not for this user.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _refused(host, port, error) from None
        return probe.getsockname()[1]


def first_free(host: str, port: int) -> int:
    """The first port from `port` on that is free.

    Raises:
        Failure: there is none, or as `require_free`.
    """
    for candidate in range(port, LAST_PORT + 1):
        with contextlib.suppress(PortTaken):
            return require_free(host, candidate)
    raise Failure(f"No port from {port} on is free on {host}.")


def _refused(host: str, port: int, error: OSError) -> Failure:
    if error.errno == errno.EADDRINUSE:
        another = port + 1 if port < LAST_PORT else port - 1
        return PortTaken(f"Port {port} on {host} is taken.", f"Choose another with PORT={another} before the command.")
    return Failure(f"Cannot listen on {host}, port {port}: {error.strerror or error}.", "Set HOST and PORT.")
