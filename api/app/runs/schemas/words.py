"""What names, times and ids look like on the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, StringConstraints

RUN_ID = re.compile(r"run_\d{8}T\d{6}Z_[0-9a-f]{8}")

Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]+$", min_length=1, max_length=40)]
"""Queues are notification channels too, which PostgreSQL limits to 63 bytes with Procrastinate's prefix."""
NO_NUL = r"^[^\x00]*$"
LockName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=NO_NUL)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=NO_NUL)]


def _in_utc(time: datetime) -> datetime:
    try:
        utc = time.astimezone(UTC)
    except OverflowError:
        raise ValueError("The time must be between the years 2000 and 2999.") from None
    if not 2000 <= utc.year <= 2999:
        raise ValueError("The time must be between the years 2000 and 2999.")
    return utc


NO_TIME = datetime(2999, 12, 31, tzinfo=UTC)
"""When the job of a run that waits for its children, or for a signal, would begin: it waits for no time."""
LONGEST_DELAY_SECONDS = 10 * 366 * 86_400
ScheduleTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]


ActionName = Annotated[str, StringConstraints(max_length=64, pattern=NO_NUL)]
QueueName = Annotated[str, StringConstraints(max_length=40, pattern=NO_NUL)]
TagName = Annotated[str, StringConstraints(max_length=64, pattern=NO_NUL)]
"""As somebody asks for them: what there is was stored by rules of its own."""
