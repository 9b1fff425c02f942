"""What is measured. Each measurement is one round of its contenders, in turn; `run.py` takes the medians of several."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from server import Server
from submissions import batch, submit

Round = dict[str, float]
"""The figures of one round, by name."""

TICKS = os.sysconf("SC_CLK_TCK")
COUNTING = 2
"""Transactions of each count of them: to connect, and to ask."""

FILL_ENDED = """
    SET session_replication_role = replica;
    INSERT INTO procrastinate_jobs (task_name, queue_name, args, status, attempts)
    SELECT 'nothing', 'default', jsonb_build_object('n', n), 'succeeded', 1 FROM generate_series(1, 1000000) AS n;
    INSERT INTO action_runs (job_id, action, params, state, attempt, queue, priority, started_at, finished_at, last_seq)
    SELECT id, task_name, args, 'succeeded', 1, queue_name, 0, now(), now(), 3 FROM procrastinate_jobs;
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT id, seq, 'state', '{"state": "succeeded"}' FROM action_runs, generate_series(1, 3) AS seq;
    INSERT INTO procrastinate_events (job_id, type) SELECT id, 'succeeded' FROM procrastinate_jobs
"""
FILL_WAITING = """
    INSERT INTO procrastinate_jobs (task_name, queue_name, args, priority)
    SELECT 'nothing', 'default', jsonb_build_object('n', n), -1 FROM generate_series(1, 100000) AS n
"""
FILL_SCHEDULED = """
    INSERT INTO procrastinate_jobs (task_name, queue_name, args, scheduled_at)
    SELECT 'nothing', 'default', jsonb_build_object('n', n), now() + interval '1 day'
      FROM generate_series(1, 50000) AS n
"""
FILL_LOCKED = """
    INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() + interval '1 day');
    INSERT INTO procrastinate_jobs (task_name, queue_name, lock, status, worker_id)
    SELECT 'nothing', 'default', 'one', 'doing', id FROM procrastinate_workers;
    INSERT INTO procrastinate_jobs (task_name, queue_name, lock)
    SELECT 'nothing', 'default', 'one' FROM generate_series(1, 10000)
"""
BACKLOGS = {
    "1,000,000 ended": FILL_ENDED,
    "100,000 waiting": FILL_WAITING,
    "50,000 scheduled": FILL_SCHEDULED,
    "10,000 behind a lock": FILL_LOCKED,
}


def drain(server: Server, jobs: int) -> Round:
    """Jobs a second of one worker process that drains a queue of no-op jobs."""
    figures: Round = {}
    server.fresh(migrated=False)
    # Its rate does not depend on how many there are, nor on the concurrency.
    figures["bare Procrastinate"] = server.run("bare", "drain", max(jobs // 15, 200), 100)["rate"]
    server.fresh(migrated=True)
    figures["Runledger, runs with the full ledger"] = server.run("runledger", "drain", jobs, 200, "runs")["rate"]
    server.fresh(migrated=True)
    figures["Runledger, jobs without runs"] = server.run("runledger", "drain", jobs, 200, "jobs")["rate"]
    server.fresh(migrated=False)
    figures["pgqueuer 1.6, batch 100"] = server.run("pgq", "drain", jobs, 100)["rate"]
    server.fresh(migrated=True)
    figures["the limit: bare SQL, batch 100"] = server.run("sql_limit", "drain", jobs, 100)["rate"]
    return figures


def backlog(server: Server, jobs: int) -> Round:
    """Runs a second of ours, on empty tables and beside what else a table may hold."""
    figures: Round = {}
    server.fresh(migrated=True)
    figures["empty tables"] = server.run("runledger", "drain", jobs, 200, "runs")["rate"]
    for name, fill in BACKLOGS.items():
        server.fresh(migrated=True)
        server.execute(*fill.split(";"), "VACUUM ANALYZE", "CHECKPOINT")
        figures[name] = server.run("runledger", "drain", jobs, 200, "first" if "waiting" in name else "runs")["rate"]
    return figures


def latency(server: Server, jobs: int) -> Round:
    """Milliseconds from before the submission to the first line of the action, one at a time, to an idle worker."""
    figures: Round = {}
    for name, contender, migrated in (
        ("bare Procrastinate", "bare", False),
        ("Runledger", "runledger", True),
        ("pgqueuer 1.6", "pgq", False),
    ):
        server.fresh(migrated=migrated)
        for percentile, value in server.run(contender, "latency", min(jobs, 300)).items():
            figures[f"{name}, {percentile}"] = value
    return figures


def idle(server: Server, jobs: int) -> Round:  # noqa: ARG001 - each measurement has this shape
    """What an idle worker costs, 50,000 runs being scheduled for tomorrow."""
    server.fresh(migrated=True)
    # Only the worker is to be counted.
    server.execute("ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()", FILL_SCHEDULED, "VACUUM ANALYZE")
    worker = subprocess.Popen(server.command("runledger", "idle"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(5)
        before, cpu, began = _counted(server), _cpu(worker.pid), time.monotonic()
        time.sleep(20)
        after, seconds = _counted(server), time.monotonic() - began
        return {
            "queries/s": (after["queries"] - before["queries"] - COUNTING) / seconds,
            "rows read/s": (after["rows"] - before["rows"]) / seconds,
            "CPU, ms/s": (_cpu(worker.pid) - cpu) * 1000 / seconds,
        }
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
        server.execute("ALTER SYSTEM RESET autovacuum", "SELECT pg_reload_conf()")


def streams(server: Server, jobs: int) -> Round:  # noqa: ARG001 - each measurement has this shape
    """1,000 open streams on one API process, over 50 runs that each tell their progress twice a second."""
    server.fresh(migrated=True)
    telling = subprocess.Popen(
        server.command("streams", "tell", 50), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    port = free_port()
    api = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "api", "--port", str(port)],
        env={**os.environ, "DATABASE_URL": server.url.render_as_string(hide_password=False)},
    )
    try:
        wait_until_it_listens(port)
        return server.run("streams", "watch", port, api.pid, 1_000, 20)
    finally:
        for process in (telling, api):
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def pages(server: Server, jobs: int) -> Round:  # noqa: ARG001 - each measurement has this shape
    """Milliseconds for a page of 50 out of 1,000,000 runs, by each filter."""
    server.fresh(migrated=True)
    return server.run("pages")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_until_it_listens(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


def memory(server: Server, jobs: int) -> Round:
    """MB of a worker process after 20,000 runs and after 200,000."""
    server.fresh(migrated=True)
    measured = server.run("runledger", "memory", jobs, 10 * jobs)
    return {"growth, MB": measured["after_last"] - measured["after_first"]}


def _counted(server: Server) -> dict[str, int]:
    [row] = server.query(
        "SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS queries, "
        "sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) AS rows FROM pg_stat_user_tables"
    )
    return {name: int(value or 0) for name, value in dict(row).items()}


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


MEASUREMENTS: dict[str, Callable[[Server, int], Round]] = {
    "submit": submit,
    "batch": batch,
    "drain": drain,
    "backlog": backlog,
    "latency": latency,
    "idle": idle,
    "memory": memory,
    "streams": streams,
    "pages": pages,
}
