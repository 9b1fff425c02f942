"""With ALLOWED_HOSTS the API answers under these names only."""

from __future__ import annotations

import httpx2
import pytest
from tests.support.workshop import Workshop

from app.main import create_app


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("api.example", 200),
        ("API.example:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 400),
        ("api.example.evil.example", 400),
        ("evil.example:80", 400),
        ("", 400),
    ],
)
async def test_other_names_are_400(workshop: Workshop, host: str, status: int) -> None:
    settings = workshop.settings.model_copy(update={"allowed_hosts": ("api.example", "::1")})
    transport = httpx2.ASGITransport(app=create_app(settings, workshop.queue, workshop.action))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.example") as client:
        answer = await client.get("/livez", headers={"host": host})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["type"] == "/problems/malformed-request"
        assert host not in answer.text or not host
