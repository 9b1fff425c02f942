"""An API that asks who calls, and everybody who may call it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx2
import jwt
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app.access import keys
from app.access.networks import read_network
from app.access.principal import Scope
from app.config import Settings

SECRET = "the new secret of the machines"
PREVIOUS = "the old secret of the machines"
JWT_SECRET = "thirty-two bytes are the fewest that are taken, and these here are twice as many"

Headers = dict[str, str]


def guarded(settings: Settings, **changes: Any) -> Settings:
    """The settings, with every kind of credential configured."""
    given = {
        "roadmap_ai_secret": SecretStr(SECRET),
        "roadmap_ai_secret_previous": SecretStr(PREVIOUS),
        "jwt_secret": SecretStr(JWT_SECRET),
    }
    return settings.model_copy(update=given | changes)


def secret(value: str = SECRET) -> Headers:
    return {"x-roadmap-ai-secret": value}


def bearer(credential: str) -> Headers:
    return {"authorization": f"Bearer {credential}"}


def token(sub: str, **claims: Any) -> str:
    """A JWT that is right, except for what `claims` make of it; a claim that is `None` is left out."""
    said = {"sub": sub, "exp": int(time.time()) + 3600, **claims}
    return jwt.encode({name: value for name, value in said.items() if value is not None}, JWT_SECRET, "HS256")


async def key(
    engine: AsyncEngine,
    owner: str | None,
    *scopes: str,
    networks: Sequence[str] = (),
    lifetime: timedelta | None = None,
    name: str = "",
) -> str:
    """An API key, which may read and write unless `scopes` say otherwise, from anywhere unless `networks` do."""
    allowed = frozenset(scopes or (Scope.READ, Scope.WRITE))
    return await keys.create(
        engine,
        "test",
        name=name,
        owner=owner,
        scopes=allowed,
        networks=[read_network(each) for each in networks],
        lifetime=lifetime,
    )


@dataclass
class Caller:
    """Calls an app without a socket, each time from another address."""

    app: FastAPI
    _addresses: Any = field(default_factory=lambda: (f"203.0.{n // 250}.{n % 250 + 1}" for n in itertools.count()))

    async def __call__(
        self, method: str, path: str, headers: Any = None, *, address: str | None = None, **options: Any
    ) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=self.app, client=(address or next(self._addresses), 5000))
        async with httpx2.AsyncClient(transport=transport, base_url="https://api.example") as client:
            return await client.request(method, path, headers=headers, **options)
