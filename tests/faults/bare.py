"""The same faults against Procrastinate as it comes: `python -m tests.faults.bare [f1 f3 …]` prints what was observed.

Its own worker and `PsycopgConnector`, a schema that it made itself, the same short times.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncGenerator

from tests.faults.bare_app import make_app
from tests.faults.bare_faults import FAULTS
from tests.faults.bare_stage import Bare
from tests.faults.cluster import Cluster
from tests.faults.proxy import Proxy


@contextlib.asynccontextmanager
async def prepared(cluster: Cluster) -> AsyncGenerator[Bare]:
    database = f"bare_{uuid.uuid4().hex[:8]}"
    await cluster.execute(f"CREATE DATABASE {database} OWNER runledger")
    async with Proxy.before(cluster.url.set(database=database)) as proxy:
        bare = Bare(cluster, database, proxy)
        async with make_app(bare.dsn).open_async() as app:
            await app.schema_manager.apply_schema_async()
        try:
            yield bare
        finally:
            bare.close()


async def observe(names: list[str]) -> None:
    """Do the faults of these numbers, or all."""
    cluster = Cluster.create()
    try:
        for fault in FAULTS:
            if names and fault.__name__.split("_")[0] not in names:
                continue
            async with prepared(cluster) as bare:
                try:
                    await fault(bare)
                    print(f"{fault.__name__}: {await bare.observed()}", flush=True)  # noqa: T201
                except Exception as error:
                    print(f"{fault.__name__}: not observed, {error!r}; {bare.notes}", flush=True)  # noqa: T201
    finally:
        cluster.remove()


if __name__ == "__main__":
    asyncio.run(observe(sys.argv[1:]))
