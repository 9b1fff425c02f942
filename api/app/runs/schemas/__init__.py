"""Runs on the wire."""

from app.runs.schemas.answers import (
    RUN,
    BatchAccepted,
    BatchItem,
    EventRead,
    Links,
    Progress,
    RunPage,
    RunRead,
    read_event,
    read_progress,
    read_run,
)
from app.runs.schemas.choices import BulkDone, BulkOp, BulkRequest, BulkRuns, Matched, RunQuery
from app.runs.schemas.requests import OnConflict, RunBatch, RunCreate, RunReplay, Unique, UniqueScope
from app.runs.schemas.words import NO_NUL, NO_TIME, RUN_ID, ActionName, Name, QueueName, ScheduleTime, TagName

__all__ = [
    "NO_NUL",
    "NO_TIME",
    "RUN",
    "RUN_ID",
    "ActionName",
    "BatchAccepted",
    "BatchItem",
    "BulkDone",
    "BulkOp",
    "BulkRequest",
    "BulkRuns",
    "EventRead",
    "Links",
    "Matched",
    "Name",
    "OnConflict",
    "Progress",
    "QueueName",
    "RunBatch",
    "RunCreate",
    "RunPage",
    "RunQuery",
    "RunRead",
    "RunReplay",
    "ScheduleTime",
    "TagName",
    "Unique",
    "UniqueScope",
    "read_event",
    "read_progress",
    "read_run",
]
