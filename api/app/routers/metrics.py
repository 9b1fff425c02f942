"""What this API process has counted."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from fastapi_rfc9457.server import problems

from app.errors import Forbidden, Unauthorized
from app.observability import metrics
from app.routers.security import Administers
from app.routers.strict import StrictRoute

router = APIRouter(tags=["metrics"], route_class=StrictRoute)

_TOLD: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The metrics.",
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": 'runledger_outbound_circuit{vendor="storage"} 0.0\n',
            }
        },
    }
}


@router.get(
    "/metrics", operation_id="metrics", response_class=Response, responses=_TOLD | problems(Unauthorized, Forbidden)
)
async def tell_metrics(principal: Administers) -> Response:  # noqa: ARG001
    """What this process has counted since it was first asked, for Prometheus. Workers have ports of their own."""
    return Response(await asyncio.to_thread(metrics.told), media_type=metrics.CONTENT_TYPE)
