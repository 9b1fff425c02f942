"""The table, the JSON and the plot."""

from __future__ import annotations

import datetime
import json
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results.json"
Results = dict[str, dict[str, list[float]]]
"""Measurement → figure → median, least and greatest of the rounds."""

BAR, ROW, LABEL = 330, 26, 270


def known() -> dict[str, Any]:
    """What has been measured until now: measurement → how, and its figures."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def add(results: Results, *, postgres: str, jobs: int, rounds: int) -> None:
    """Let what was measured take the place of what was measured before."""
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "postgresql": postgres,
        "jobs": jobs,
        "rounds": rounds,
    }
    measured = {name: about | {"figures": figures} for name, figures in results.items()}
    RESULTS.write_text(json.dumps(known() | measured, indent=1) + "\n")


def write() -> None:
    """Write what has been measured to where it is read."""
    measured = known()
    results = {name: one["figures"] for name, one in measured.items()}
    (ROOT / "docs/images/bench.svg").write_text(plot(results["drain"]))
    table = "\n".join(
        ["", heading(measured), "", "| | measured | against | ratio |", "|---|---|---|---|", *rows(results), ""]
    )
    for page in ("README.md", "bench/README.md"):
        path = ROOT / page
        path.write_text(
            re.sub(r"(<!-- bench -->).*(<!-- /bench -->)", lambda m: m[1] + table + m[2], path.read_text(), flags=re.S)
        )


def heading(measured: dict[str, Any]) -> str:
    about = measured["drain"]
    dates = sorted({one["date"] for one in measured.values()})
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
    return (
        f"{when}, {about['cores']} shared cores, PostgreSQL {about['postgresql']} with default durability, "
        f"{about['jobs']:,} no-op jobs, one worker process, medians of {about['rounds']} rounds:"
    )


def rows(results: Results) -> list[str]:
    """One line for each promise of speed."""
    drain, backlog = _medians(results["drain"]), _medians(results["backlog"])
    latency, idle = _medians(results["latency"]), _medians(results["idle"])
    streams, pages = _medians(results["streams"]), _medians(results["pages"])
    slowest = max(pages, key=lambda name: pages[name])
    submit, batch = _medians(results["submit"]), _medians(results["batch"])
    ours, plain = drain["Runledger, runs with the full ledger"], drain["Runledger, jobs without runs"]
    return [
        *(
            _row("submit, `POST /runs`, 32 connections", submit["POST /runs"], name, rate, "/s")
            for name, rate in submit.items()
            if name != "POST /runs"
        ),
        _row(
            "submit, 1,000 a request",
            batch["POST /runs/batch"],
            "bare batch_defer_async",
            batch["bare batch_defer_async"],
            "/s",
        ),
        _row("drain, runs with the full ledger", ours, "bare Procrastinate", drain["bare Procrastinate"], "/s"),
        _row("", ours, "pgqueuer 1.6, which has no ledger", drain["pgqueuer 1.6, batch 100"], "/s"),
        _row("", ours, "the limit, bare SQL", drain["the limit: bare SQL, batch 100"], "/s"),
        _row("drain, jobs without runs", plain, "pgqueuer 1.6", drain["pgqueuer 1.6, batch 100"], "/s"),
        *(
            _row(f"drain beside {name}", rate, "on empty tables", backlog["empty tables"], "/s")
            for name, rate in backlog.items()
            if name != "empty tables"
        ),
        *(
            _row(f"pick-up, {at}", latency[f"Runledger, {at}"], peer, latency[f"{peer}, {at}"], " ms")
            for at in ("p50", "p99")
            for peer in ("bare Procrastinate", "pgqueuer 1.6")
        ),
        f"| an idle worker, 50,000 runs scheduled | {idle['queries/s']:.1f} queries/s, "
        f"{idle['rows read/s']:.0f} rows/s, {idle['CPU, ms/s']:.0f} ms CPU/s | | |",
        f"| memory after 200,000 runs minus after 20,000 | {results['memory']['growth, MB'][0]:.1f} MB | | |",
        f"| 1,000 streams over 50 runs that tell their progress | p95 {streams['p95, ms']:.0f} ms, "
        f"{streams['memory growth, MB']:.0f} MB more | | |",
        f"| a page of 50 out of 1,000,000 runs, by the slowest filter ({slowest}) | {pages[slowest]:.1f} ms | | |",
    ]


def _row(what: str, measured: float, against: str, other: float, unit: str) -> str:
    digits = 1 if unit == " ms" else 0
    return f"| {what} | {measured:,.{digits}f}{unit} | {against}: {other:,.{digits}f}{unit} | {measured / other:.2f} |"


def _medians(figures: dict[str, list[float]]) -> dict[str, float]:
    return {name: values[0] for name, values in figures.items()}


def plot(drain: dict[str, list[float]]) -> str:
    """Bars of jobs a second, readable on light and on dark."""
    most = max(values[0] for values in drain.values())
    bars = []
    for number, (name, (rate, _, _)) in enumerate(sorted(drain.items(), key=lambda item: item[1][0])):
        y, width = 14 + number * ROW, max(BAR * rate / most, 2)
        colour = "#2f81f7" if name.startswith("Runledger") else "#8b949e"
        bars.append(
            f'<text x="{LABEL - 10}" y="{y + 14}" text-anchor="end">{name}</text>'
            f'<rect x="{LABEL}" y="{y}" width="{width:.0f}" height="18" rx="2" fill="{colour}"/>'
            f'<text x="{LABEL + width + 8:.0f}" y="{y + 14}">{rate:,.0f}/s</text>'
        )
    height = 20 + len(bars) * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LABEL + BAR + 90} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#7d8590">'
        "<title>No-op jobs a second that one worker process drains</title>" + "".join(bars) + "</svg>\n"
    )
