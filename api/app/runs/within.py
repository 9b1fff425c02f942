"""Statements as part of a transaction of somebody else's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.engine.connector import SQLAlchemyAsyncConnector


@dataclass(frozen=True)
class Within:
    """A `Database` whose statements take effect when the transaction of `connection` commits."""

    connector: SQLAlchemyAsyncConnector
    connection: AsyncConnection

    async def execute_query_all_async(self, query: str, **arguments: Any) -> list[dict[str, Any]]:
        return await self.connector.execute_query_all_async_with_connection(self.connection, query, **arguments)
