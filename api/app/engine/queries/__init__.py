"""Every statement of the engine. Each write names the holder it expects: job, worker and attempt.

A job and its row in `action_runs` change in one statement; where a job has no run, that part touches no row. The
statements that write a run's state and event themselves say so (`runledger.keeps_ledger`), and the ledger's triggers
leave both to them: `on`, or `all` if they also write Procrastinate's events and ring, and end nothing. Whatever else
changes a job, the triggers do it.
"""

from app.engine.queries.claim import Claim, Place, claim_jobs, claim_ready_jobs, release_due_jobs
from app.engine.queries.database import Database
from app.engine.queries.finish import EndedJob, ParkedJob, delete_ended_jobs, end_jobs, park_jobs
from app.engine.queries.limits import adopt_limited_jobs, delete_idle_limit_keys, end_adoption, register_limits
from app.engine.queries.rescue import expire_jobs, list_abandoned_jobs, rescue_job
from app.engine.queries.schedules import fire_schedule, list_schedules, register_schedules
from app.engine.queries.workers import AboutWorker, beat, delete_lost_workers, list_held_jobs, notify_queue_usage

__all__ = [
    "AboutWorker",
    "Claim",
    "Database",
    "EndedJob",
    "ParkedJob",
    "Place",
    "adopt_limited_jobs",
    "beat",
    "claim_jobs",
    "claim_ready_jobs",
    "delete_ended_jobs",
    "delete_idle_limit_keys",
    "delete_lost_workers",
    "end_adoption",
    "end_jobs",
    "expire_jobs",
    "fire_schedule",
    "list_abandoned_jobs",
    "list_held_jobs",
    "list_schedules",
    "notify_queue_usage",
    "park_jobs",
    "register_limits",
    "register_schedules",
    "release_due_jobs",
    "rescue_job",
]
