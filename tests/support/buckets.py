"""Other people's storage on loopback: S3's API by moto, and Bunny's by a few lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx2
from moto.server import ThreadedMotoServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

BUCKET = "attic"
BUNNY_KEY = "the zone's password"


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The URL of an S3 that has the bucket `BUCKET`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    httpx2.put(f"{url}/{BUCKET}", trust_env=False).raise_for_status()
    try:
        yield url
    finally:
        server.stop()


def bunny() -> Starlette:
    """A storage zone."""
    files: dict[str, bytes] = {}

    async def serve(request: Request) -> Response:
        if request.headers.get("accesskey") != BUNNY_KEY:
            return Response(status_code=401)
        path = request.path_params["path"]
        match request.method:
            case "PUT":
                files[path] = await request.body()
                return Response(status_code=201)
            case "DELETE":
                return Response(status_code=200 if files.pop(path, None) is not None else 404)
            case _:
                return Response(files[path]) if path in files else Response(status_code=404)

    return Starlette(routes=[Route("/{path:path}", serve, methods=["GET", "PUT", "DELETE"])])
