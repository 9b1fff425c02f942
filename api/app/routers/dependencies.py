"""What a route may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine

from app.access.gate import Gate
from app.access.streams import Streams
from app.config import Settings
from app.control.pulse import Pulse
from app.engine.manager import JobManager
from app.engine.schedule import Schedule
from app.outbound.storage.interface import Storage
from app.runs.actions import Actions
from app.runs.intake import Intake
from app.runs.lookout import Lookout


@dataclass(frozen=True)
class Services:
    """The parts of one API process."""

    settings: Settings
    engine: AsyncEngine
    manager: JobManager
    actions: Actions
    intake: Intake
    lookout: Lookout
    pulse: Pulse
    gate: Gate
    streams: Streams
    stopping: asyncio.Event
    """Set when the process is told to stop: open streams end."""
    schedules: Sequence[Schedule]
    """Those that the code declares."""
    storage: Storage


async def services(request: Request) -> Services:
    return request.app.state.services


ServicesDep = Annotated[Services, Depends(services)]
