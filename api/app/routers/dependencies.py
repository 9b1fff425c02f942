"""What a route may ask for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from app.routers.services import Services


async def services(request: Request) -> Services:
    return request.app.state.services


ServicesDep = Annotated[Services, Depends(services)]
