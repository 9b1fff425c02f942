"""`make demo`: see three runs end, live in the terminal.

Starts everything as `runledger up` does, and a small site to scrape; submits three runs and follows their streams;
prints their results, and leaves nothing running.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from sites import DemoSite

from app.cli.address import first_free, require_free
from app.cli.backend import cancelled_by_signals, running
from app.cli.connection import connect
from app.cli.failure import INTERRUPTED, Failure
from app.cli.schema import prepare_database
from app.cli.screen import complaints, say, show, show_table, stdout
from app.cli.watching import Display, display_on, watch
from app.config import Settings, get_settings
from runledger_client import Client, Run

SOLILOQUY = """
To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer the slings and arrows of
outrageous fortune, or to take arms against a sea of troubles and by opposing end them. To die, to sleep, no more; and
by a sleep to say we end the heart-ache and the thousand natural shocks that flesh is heir to.
"""
LONG_TEXT = SOLILOQUY * 3_000
PATIENCE_SECONDS = 60
LAST_WORDS = 4_000
"""Characters of the processes' log that explain a failure."""


@dataclass(frozen=True)
class Example:
    """Something to run, what to call it, and how to tell its result in a line."""

    label: str
    action: str
    params: dict[str, Any]
    tell: Callable[[dict[str, Any]], str]


async def demo() -> int:
    """The exit code: 0 when all runs succeeded."""
    with cancelled_by_signals():
        try:
            settings = get_settings()
            await asyncio.to_thread(prepare_database, settings)
            with DemoSite() as site:
                examples = examples_on(site.url)
                ended = await perform(settings, examples)
        except asyncio.CancelledError:
            say("Stopped.")
            return INTERRUPTED
    show_results(examples, ended)
    return 0 if all(run.state == "succeeded" for run in ended) else 1


def examples_on(site: str) -> list[Example]:
    return [
        Example("a page", "scrape_page", {"url": f"{site}/"}, tell_page),
        Example("a page that is down at first", "scrape_page", {"url": f"{site}/moody"}, tell_page),
        Example("a long text in ten steps", "count_words", {"text": LONG_TEXT}, tell_count),
    ]


async def perform(settings: Settings, examples: list[Example]) -> list[Run]:
    """The runs as they ended, in the order of the examples."""
    with tempfile.TemporaryFile("w+") as log:
        try:
            async with running(settings, choose_port(settings), output=log) as backend:
                return await backend.during(submit_and_watch(backend.url, examples))
        except Failure:
            show_last_words(log)
            raise


async def submit_and_watch(url: str, examples: list[Example]) -> list[Run]:
    say(f"Submitting {len(examples)} runs to {url}")
    async with connect(url) as client:
        with display_on(stdout) as display:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    return await asyncio.gather(*(submit(client, example, display) for example in examples))
            except TimeoutError:
                raise Failure(f"The runs have not ended after {PATIENCE_SECONDS} s.") from None


async def submit(client: Client, example: Example, display: Display) -> Run:
    submitted = await client.submit(example.action, example.params)
    return await watch(client, submitted, display, label=example.label)


def choose_port(settings: Settings) -> int:
    """The port of the settings, or the next one that is free."""
    if settings.port == 0:
        return require_free(settings.host, 0)
    port = first_free(settings.host, settings.port)
    if port != settings.port:
        say(f"Port {settings.port} is taken: using {port}. Choose another with PORT=… make demo")
    return port


def show_results(examples: list[Example], ended: list[Run]) -> None:
    rows = [
        [example.label, run.state, f"{run.attempt}", f"{seconds(run):.1f} s", outcome(example, run)]
        for example, run in zip(examples, ended, strict=True)
    ]
    show("")
    show_table(["RUN", "STATE", "ATTEMPTS", "TOOK", "RESULT"], rows)


def outcome(example: Example, run: Run) -> str:
    return example.tell(run.result) if run.state == "succeeded" else str(run.error)


def seconds(run: Run) -> float:
    assert run.finished_at is not None
    return (run.finished_at - run.created_at).total_seconds()


def tell_page(page: dict[str, Any]) -> str:
    return f"{page['title']} ({len(page['text']):,} characters, {len(page['links'])} link(s))"


def tell_count(count: dict[str, Any]) -> str:
    favourites = ", ".join(f"{entry['word']} {entry['count']:,}" for entry in count["most_common"][:3])
    return f"{count['total']:,} words, {count['distinct']} different: {favourites} …"


def show_last_words(log: IO[str]) -> None:
    log.seek(0)
    say(log.read()[-LAST_WORDS:])


if __name__ == "__main__":
    with complaints():
        sys.exit(asyncio.run(demo()))
