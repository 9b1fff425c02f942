"""The API as it is served, for requests that nobody means: `python -m tests.fuzz.server PORT`.

Its streams end when they have said what there is, and its document asks for no credential, since this one needs none.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI

from app.cli.serving import serve
from app.main import create_app


def create() -> FastAPI:
    """The API, told to stop as soon as it has started: it answers all the same, and nobody waits for live events."""
    app = create_app()
    starting = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(given: FastAPI) -> AsyncGenerator[Any]:
        async with starting(given) as state:
            given.state.services.stopping.set()
            yield state

    app.router.lifespan_context = lifespan
    for methods in app.openapi()["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    return app


if __name__ == "__main__":
    serve("tests.fuzz.server:create", "127.0.0.1", int(sys.argv[1]))
