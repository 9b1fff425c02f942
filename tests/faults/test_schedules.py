"""Faults while the clock asks for runs: the verdict finds every tick from the first to the last, each once."""

from __future__ import annotations

import asyncio

from tests.faults.cluster import Cluster
from tests.faults.trial import Trial, ask_until

TICKS = "SELECT count(*) FROM action_runs WHERE action = 'tick'"


async def ticked(trial: Trial, more: int) -> int:
    """Wait until there are so many more ticks than now."""
    before = await ask_until(lambda: trial.workshop.value(f"SELECT greatest(({TICKS}), 1)"))

    async def there() -> int:
        now = await trial.workshop.value(TICKS)
        return now if now >= before + more else 0

    return await ask_until(there)


async def test_every_tick_is_one_run_whatever_is_paused_or_restarted(cluster_trial: Trial, cluster: Cluster) -> None:
    zombie, *others = [await cluster_trial.worker(TICKING="1") for _ in range(3)]
    await ticked(cluster_trial, 2)
    async with cluster_trial.paused(zombie):
        await ticked(cluster_trial, 2)
        await asyncio.to_thread(cluster.stop)
        await asyncio.sleep(1.5)  # the length of the outage
        await asyncio.to_thread(cluster.start)
        await ticked(cluster_trial, 3)
    await ticked(cluster_trial, 2)
    for other in others:
        other.terminate()
        assert await cluster_trial.exits(other) == 0
    # The one that was paused takes over, although what it knew of the last tick was old.
    await ticked(cluster_trial, 2)
    assert zombie.poll() is None
