"""Whatever is done to runs, in whatever order, by callers, workers and what befalls workers: the ledger stays true.

Workers are stepped: one claims, another ends, a third is lost and does not know it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as effort
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)  # fmt: skip
from tests.faults.invariants import AGREES, FINAL, troubles
from tests.support.workshop import Workshop, open_workshop

from app.config import Settings
from app.engine import queries
from app.engine.claims import ClaimedJob, Claims
from app.engine.link import Link
from app.engine.rescue import Rescue
from app.errors import RunFinal, RunLost, RunNotFailed, RunWaits
from app.outbound.postgres.database import make_engine
from app.runs import service, signals, submission
from app.runs.queries import Holder
from app.runs.schemas import RunCreate, RunRead, RunReplay

T = TypeVar("T")

CRASH_CAP = 2
# What may follow what, as a run's events tell it.
FOLLOWS = {
    # Another time to begin is told too.
    "scheduled": {"scheduled", "queued", "running", "cancelled"},
    "queued": {"running", "cancelled"},
    "running": {"scheduled", "queued", "retrying", "succeeded", "failed", "cancelled"},
    "retrying": {"retrying", "queued", "running", "cancelled"},
    "succeeded": set[str](),
    "failed": {"queued", "retrying"},
    "cancelled": {"queued", "retrying"},
}
STATUSES = {"succeeded": "succeeded", "failed": "failed", "retrying": "todo", "cancelled": "aborted"}


@dataclass
class Bench:
    """A database and its parts, for one example after the other."""

    runner: asyncio.Runner
    workshop: Workshop
    link: Link

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)


@dataclass
class Seat:
    """Where a worker sits: when it is lost, another takes its place."""

    worker_id: int
    former: list[int] = field(default_factory=list[int])


@dataclass(frozen=True)
class Held:
    """What a worker believes to hold."""

    job: ClaimedJob
    worker_id: int


class Ledger(RuleBasedStateMachine):
    """The steps, and what must hold after each."""

    bench: ClassVar[Bench]
    runs = Bundle("runs")
    held = Bundle("held")

    @initialize()
    def begin(self) -> None:
        self.bench.do(
            self.bench.workshop.execute(
                "TRUNCATE procrastinate_jobs, procrastinate_workers, action_runs, run_waits, run_signals CASCADE"
            )
        )
        self.seats = [Seat(self._new_worker()) for _ in range(2)]
        self.succeeded: dict[str, Any] = {}

    @rule(target=runs, lock=st.sampled_from([None, "a"]), is_later=st.booleans())
    def submit(self, lock: str | None, is_later: bool) -> RunRead:
        later = {"schedule_at": "2999-01-01T00:00:00Z"} if is_later else {}
        request = RunCreate.model_validate({"action": "work", "lock": lock, **later})
        run = self.bench.do(self.bench.workshop.request(request))
        assert run.state == ("scheduled" if is_later else "queued")
        return run

    @rule(run=runs)
    def cancel(self, run: RunRead) -> None:
        before = self._get(run)
        engine, manager = self.bench.workshop.engine, self.bench.workshop.queue.job_manager
        if before.state in ("succeeded", "failed"):
            with pytest.raises(RunFinal):
                self.bench.do(service.cancel(engine, manager, run.id))
            assert self._get(run) == before
        elif before.state == "cancelled":
            assert self.bench.do(service.cancel(engine, manager, run.id)) == before
        else:
            after = self.bench.do(service.cancel(engine, manager, run.id))
            assert after.state == ("running" if before.state == "running" else "cancelled")

    @rule(run=runs)
    def retry(self, run: RunRead) -> None:
        before = self._get(run)
        if before.state in ("failed", "cancelled"):
            after = self.bench.do(service.retry(self.bench.workshop.engine, run.id))
            assert after.state in ("queued", "retrying")
            assert (after.result, after.finished_at) == (None, None)
        else:
            with pytest.raises(RunNotFailed):
                self.bench.do(service.retry(self.bench.workshop.engine, run.id))
            assert self._get(run) == before

    @rule(target=runs, run=runs)
    def replay(self, run: RunRead) -> RunRead:
        before = self._get(run)
        again = self.bench.do(service.again(self.bench.workshop.engine, run.id, RunReplay()))
        action = self.bench.workshop.action["work"]
        new = self.bench.do(submission.accept(self.bench.workshop.intake, action, again.request, again.origin)).run
        assert (new.replay_of, new.state, new.lock, new.attempt) == (run.id, "queued", run.lock, 0)
        assert self._get(run) == before
        return new

    @rule()
    def time_passes(self) -> None:
        """What is scheduled, or backs off, becomes due."""
        self.bench.do(
            self.bench.workshop.execute(
                "UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo' AND scheduled_at > now()"
            )
        )

    @rule(target=held, seat=st.integers(0, 1))
    def claim(self, seat: int) -> Any:
        worker_id = self.seats[seat].worker_id
        jobs = self.bench.do(Claims(self.bench.link, None).claim(worker_id, 1))
        return multiple(*(Held(job, worker_id) for job in jobs))

    @rule(held=consumes(held), state=st.sampled_from(sorted(STATUSES)))
    def end(self, held: Held, state: str) -> None:
        """A worker writes how an attempt ended, also one that was lost meanwhile: it must write nothing."""
        is_lost = any(held.worker_id in seat.former for seat in self.seats)
        ended = queries.EndedJob(
            held.job.id,
            held.job.attempts,
            STATUSES[state],
            delay=3600.0 if state == "retrying" else 0.0,
            result='"done"' if state == "succeeded" else None,
            error='{"type": "/problems/value"}' if state in ("failed", "retrying") else None,
        )
        before = self._get(str(held.job.run_id))
        written = self.bench.do(queries.end_jobs(self.bench.link, worker_id=held.worker_id, ended=[ended]))
        after = self._get(str(held.job.run_id))
        if is_lost:
            assert written == set()
            assert after == before
        else:
            assert written == {held.job.id}
            assert after.state in (state, "cancelled")

    @rule(held=consumes(held))
    def wait(self, held: Held) -> None:
        """An attempt ends because its run waits for a signal, unless that has come."""
        holder = Holder(str(held.job.run_id), held.worker_id, held.job.attempts + 1, held.job.snoozes)
        parked = queries.ParkedJob(held.job.id, held.job.attempts, held.job.claimed_at)
        before = self._get(holder.run_id)
        try:
            self.bench.do(signals.receive(self.bench.workshop.engine, holder, "go", None))
        except RunWaits:
            assert before.state == "running"
        except RunLost:
            assert any(held.worker_id in seat.former for seat in self.seats)
        self.bench.do(queries.park_jobs(self.bench.link, worker_id=held.worker_id, parked=[parked]))

    @rule(run=runs)
    def signal(self, run: RunRead) -> None:
        before = self._get(run)
        try:
            self.bench.do(signals.send(self.bench.workshop.engine, run.id, "go", 1, owner=None))
        except RunFinal:
            assert before.state.is_final

    @invariant()
    def what_has_come_is_not_waited_for(self) -> None:
        waiting = "SELECT run_id FROM run_waits JOIN run_signals USING (run_id) WHERE signal = name"
        assert self._fetch(waiting) == []
        assert (
            self._fetch("SELECT id FROM action_runs JOIN run_waits ON run_id = id WHERE finished_at IS NOT NULL") == []
        )

    @rule(seat=st.integers(0, 1))
    def crash(self, seat: int) -> None:
        """A worker is lost with all it holds; another finds that out, and a new one comes."""
        lost = self.seats[seat]
        self.bench.do(
            self.bench.workshop.execute(
                "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour' WHERE id = :id",
                id=lost.worker_id,
            )
        )
        rescue = Rescue(self.bench.workshop.queue.connector, lease=30, crash_cap=CRASH_CAP)
        self.bench.do(rescue.sweep())
        self.seats[seat] = Seat(self._new_worker(), [*lost.former, lost.worker_id])

    @invariant()
    def run_and_job_agree(self) -> None:
        rows = self._fetch(
            "SELECT run.id, run.state, job.status"
            "  FROM action_runs run JOIN procrastinate_jobs job ON job.id = run.job_id"
        )
        assert [row for row in rows if row["state"] not in AGREES[row["status"]]] == []
        assert len(rows) == self._fetch("SELECT count(*) AS n FROM procrastinate_jobs")[0]["n"]

    @invariant()
    def events_are_numbered_without_a_gap_and_tell_legal_states(self) -> None:
        for row in self._fetch(
            """
            SELECT run.state, run.last_seq, array_agg(event.seq ORDER BY seq) AS seqs,
                   array_agg(event.data ->> 'state' ORDER BY seq)
                       FILTER (WHERE event.type = 'state' AND NOT event.data ? 'cancel_requested') AS states
              FROM action_runs run JOIN run_events event ON event.run_id = run.id GROUP BY run.id
            """
        ):
            assert row["seqs"] == list(range(1, row["last_seq"] + 1))
            assert row["states"][-1] == row["state"]
            assert [pair for pair in pairwise(row["states"]) if pair[1] not in FOLLOWS[pair[0]]] == []

    @invariant()
    def an_end_has_its_time_and_only_success_a_result(self) -> None:
        for row in self._fetch("SELECT id, state, result, finished_at, error FROM action_runs"):
            assert (row["state"] in FINAL) == (row["finished_at"] is not None)
            assert (row["state"] == "succeeded") == (row["result"] is not None)
            if row["state"] == "succeeded":
                assert self.succeeded.setdefault(row["id"], row) == row

    @invariant()
    def trouble_is_found_where_it_is(self) -> None:
        assert list(troubles({row["id"]: row for row in self._fetch("SELECT * FROM action_runs")})) == []

    @invariant()
    def a_lock_is_held_once(self) -> None:
        held = self._fetch("SELECT lock FROM procrastinate_jobs WHERE status = 'doing' AND lock IS NOT NULL")
        assert len(held) == len({row["lock"] for row in held})

    def _new_worker(self) -> int:
        return self.bench.do(self.bench.workshop.queue.job_manager.register_worker())

    def _get(self, run: RunRead | str) -> RunRead:
        return self.bench.do(self.bench.workshop.get(run))

    def _fetch(self, sql: str) -> list[dict[str, Any]]:
        return self.bench.do(self.bench.workshop.fetch(sql))


@pytest.fixture
def bench(settings: Settings) -> Generator[Bench]:
    with asyncio.Runner() as runner:
        engine = make_engine(settings)
        opened = open_workshop(engine, settings)
        workshop = runner.run(opened.__aenter__())

        @workshop.action()
        async def work() -> str: ...

        link = Link(engine, timeout=20)
        yield Bench(runner, workshop, link)
        link.close()
        runner.run(opened.__aexit__(None, None, None))
        runner.run(engine.dispose())


@pytest.mark.timeout(240)
def test_the_ledger_stays_true_whatever_is_done_in_whatever_order(bench: Bench) -> None:
    machine = type("LedgerHere", (Ledger,), {"bench": bench})
    run_state_machine_as_test(
        machine,
        settings=effort(
            max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
