"""Measure Runledger beside its peers, in one run on one PostgreSQL.

usage: python bench/run.py [--rounds 3] [--jobs 20000] [--only drain,latency]

Contenders take turns, each round on fresh databases; the medians count, and of those the ratios: the machine is shared.
What was measured takes its place in bench/results.json, of which docs/images/bench.svg and the table in README.md and
bench/README.md are made. What is compared with each other was always measured in one run.
"""

from __future__ import annotations

import argparse
import statistics

from measurements import MEASUREMENTS
from report import Results, add, known, write
from server import Server

ONCE = {"idle", "memory", "streams", "pages"}
"""These last for minutes, and hardly differ from round to round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--only", default=",".join(MEASUREMENTS))
    given = parser.parse_args()
    results: Results = {}
    with Server.started() as server:
        for name in given.only.split(","):
            rounds = 1 if name in ONCE else given.rounds
            measured = [MEASUREMENTS[name](server, given.jobs) for _ in range(rounds)]
            results[name] = {
                figure: [statistics.median(values), min(values), max(values)]
                for figure in measured[0]
                for values in [[one[figure] for one in measured]]
            }
            for figure, (median, low, high) in results[name].items():
                print(f"{name:10} {figure:40} {median:10,.1f}   ({low:,.1f} … {high:,.1f})", flush=True)
        version = server.query("SHOW server_version")[0][0]
    add(results, postgres=version, jobs=given.jobs, rounds=given.rounds)
    if set(known()) == set(MEASUREMENTS):
        write()


if __name__ == "__main__":
    main()
