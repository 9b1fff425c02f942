"""What Procrastinate asks of the database on behalf of a worker. No answer of the database ends a worker."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Iterable
from typing import cast

from procrastinate import exceptions, jobs
from procrastinate import manager as upstream
from typing_extensions import override

from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.report import one_line

logger = logging.getLogger(__name__)


class JobManager(upstream.JobManager):
    """Procrastinate's `JobManager`, hard to kill."""

    connector: SQLAlchemyAsyncConnector

    @override
    async def register_worker(self) -> int:
        """Ask for a worker's id until the database gives one."""
        while True:
            try:
                return await super().register_worker()
            except exceptions.ConnectorException as error:
                logger.warning("This worker cannot be registered yet: %s", one_line(error))
                await asyncio.sleep(random.uniform(0.1, 1))

    @override
    async def prune_stalled_workers(self, seconds_since_heartbeat: float) -> list[int]:
        """Forget lost workers, if the database can do it now: every sweep does it, too."""
        try:
            return await super().prune_stalled_workers(seconds_since_heartbeat)
        except exceptions.ConnectorException as error:
            logger.warning("Lost workers cannot be forgotten now: %s", one_line(error))
            return []

    @override
    async def listen_for_jobs(
        self, *, on_notification: upstream.NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        async def understand(*, channel: str, payload: str) -> None:
            await on_notification(channel=channel, notification=cast(jobs.Notification, json.loads(payload)))

        async def look_once() -> None:
            # What was announced while nobody listened: a worker that hears "inserted" looks at the queue.
            await on_notification(channel="", notification={"type": "job_inserted", "job_id": 0})

        channels = upstream.get_channel_for_queues(queues=queues)
        await self.connector.listen(understand, channels, on_listening=look_once)
