"""The table of contents: the Procrastinate app, every action, every cron task.

To add an action, write one function here. Its parameters are the input, what it returns is the result.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, JsonValue

from app.access import audit
from app.config import get_settings
from app.domain.adventures import pipeline
from app.domain.adventures.pipeline import Entry
from app.domain.backlog import enriching, full, sync, writing
from app.domain.digest.digest import Order, make_digest
from app.domain.digest.models import Digest
from app.domain.files.processing import ProcessedFile
from app.domain.files.processing import process as process_stored
from app.domain.journal import Policy
from app.domain.mail.message import FileKey, Mail, MailSent, send_mail
from app.domain.scraping.page import ScrapedPage
from app.domain.scraping.page import scrape_page as scrape
from app.domain.scraping.site import Bounds, ScrapedSite
from app.domain.scraping.site import scrape_site as crawl
from app.domain.text.words import WordCount, count, merge, split_in_parts
from app.domain.vectors import texts as vectors
from app.domain.vectors.texts import Collection, EmbeddedTexts, EmbedTexts, FoundTexts, Source
from app.engine.app import App
from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.retry import Retry
from app.outbound.clients import open_clients
from app.outbound.feeds import stub as feeds_stub
from app.outbound.postgres.adventures import AdventureShelf
from app.outbound.postgres.backlog import BacklogShelf
from app.outbound.postgres.database import make_engine
from app.outbound.postgres.digests import DigestShelf
from app.outbound.postgres.texts import Texts
from app.outbound.web.guard import fetchable, web_policy
from app.runs import bulk, children, scraped, service
from app.runs.actions import Actions
from app.runs.bulk import Hands
from app.runs.context import Run
from app.runs.intake import Intake
from app.runs.problems import describe
from app.runs.schemas import BulkDone, BulkRuns
from app.webhooks import deliveries
from app.webhooks.deliveries import Delivered
from app.webhooks.sealing import Seal

settings = get_settings()


@contextlib.asynccontextmanager
async def worker_resources() -> AsyncGenerator[dict[str, Any]]:
    """What a worker opens once, for all its runs."""
    async with open_clients(settings) as clients:
        yield {"clients": clients}


procrastinate_app = App(
    connector=SQLAlchemyAsyncConnector(make_engine(settings), timeout=settings.db_timeout_seconds),
    describe=describe,
    resources=worker_resources,
    worker_options={"sweep_interval": settings.sweep_seconds, "crash_cap": settings.crash_cap},
    worker_defaults={
        "concurrency": settings.worker_concurrency,
        "fetch_job_polling_interval": settings.poll_seconds,
        "abort_job_polling_interval": settings.poll_seconds,
        "update_heartbeat_interval": settings.heartbeat_seconds,
        "stalled_worker_timeout": settings.lease_seconds,
        "shutdown_graceful_timeout": settings.grace_seconds,
    },
)

action = Actions(procrastinate_app)
seal = Seal(settings.webhook_keys)

may_be_fetched = fetchable(web_policy(allow_private=settings.environment != "production"))
PageUrl = Annotated[HttpUrl, may_be_fetched, Field(examples=["https://example.com/"])]

PARTS = 10
LAST_SECOND = 253_402_300_799
"""Of the year 9999."""


def backlog_shelf() -> BacklogShelf:
    """Where the backlog is kept."""
    return BacklogShelf(procrastinate_app.connector.engine)


class Echo(BaseModel):
    """What was said."""

    message: str


class Greeting(BaseModel):
    """To everybody, and what came with it."""

    greeting: str
    data: JsonValue


class Anything(BaseModel):
    """Whatever is sent."""

    model_config = ConfigDict(extra="allow")


class Slept(BaseModel):
    """How long, and what was to be said."""

    slept_seconds: float
    message: str | None


class Cancelled(BaseModel):
    """How many runs were cancelled, or asked to stop."""

    runs: int


class Pruned(BaseModel):
    """How many runs, deliveries of webhooks, entries of the audit log and digests of the news were deleted."""

    runs: int
    deliveries: int
    audit_entries: int
    digests: int


@action()
async def echo(message: Annotated[str, Field(max_length=10_000, examples=["hello"])]) -> Echo:
    """Say it back."""
    return Echo(message=message)


@action()
async def hello_world(data: Annotated[JsonValue, Field(examples=["test message"])] = None) -> Greeting:
    """Greet the world, and give back what was sent along."""
    return Greeting(greeting="Hello, world!", data=data)


@action()
async def noop(params: Anything) -> None:
    """Do nothing. What is sent is kept with the run."""


@action()
async def sleep(
    run: Run, seconds: Annotated[float, Field(ge=0, le=86_400, examples=[3])] = 3, message: str | None = None
) -> Slept:
    """Sleep, and say so every second."""
    for second in range(int(seconds)):
        await run.progress(second, seconds)
        await asyncio.sleep(1)
    await asyncio.sleep(seconds % 1)
    await run.progress(seconds, seconds)
    return Slept(slept_seconds=seconds, message=message)


@action(retry=Retry(max_attempts=5, base=1, cap=60))
async def scrape_page(run: Run, url: PageUrl) -> ScrapedPage:
    """Fetch a page, robots.txt permitting: its title, description, main text and links."""
    return await scrape(run.clients.web, str(url))


@action(retry=Retry(max_attempts=5, base=1, cap=60))
async def scrape_site(
    run: Run,
    url: PageUrl,
    max_pages: Annotated[int, Field(ge=1, le=1000)] = 100,
    max_depth: Annotated[int, Field(ge=0, le=50)] = 3,
    pages_per_second: Annotated[float, Field(gt=0.01, le=50)] = 5,
) -> ScrapedSite:
    """Read a site page by page, robots.txt permitting: each page once, and a retry goes on where it was."""
    return await crawl(run, run.clients.web, str(url), Bounds(max_pages, max_depth, pages_per_second))


@action()
async def embed_texts(run: Run, asked: EmbedTexts) -> EmbeddedTexts:
    """Make texts, or the pages of a scraping run, searchable by what they mean; needs pgvector."""
    engine = procrastinate_app.connector.engine
    if asked.run_id is not None:
        texts = vectors.passages(await scraped.pages_of(engine, asked.run_id, owner=run.owner))
    else:
        texts = [Source(text=text) for text in asked.texts or ()]
    return await vectors.embed_texts(run, run.clients.embeddings, Texts(engine, run.owner), asked.collection, texts)


@action()
async def search_texts(
    run: Run,
    collection: Collection,
    query: Annotated[str, Field(min_length=1, max_length=1000, examples=["towers with a light"])],
    limit: Annotated[int, Field(ge=1, le=100)] = 10,
) -> FoundTexts:
    """Find the texts of a collection that are nearest to what a query means; needs pgvector."""
    library = Texts(procrastinate_app.connector.engine, run.owner)
    return await vectors.search_texts(run.clients.embeddings, library, collection, query, limit=limit)


@action()
async def count_words(
    run: Run, text: Annotated[str, Field(max_length=1_000_000, examples=["to be or not to be"])]
) -> WordCount:
    """Count the words of a text in ten steps: a retry goes on after the last finished one."""
    parts = split_in_parts(text, PARTS)
    counts: list[dict[str, int]] = []
    for number, part in enumerate(parts, start=1):
        counts.append(await run.step(f"part-{number}", asyncio.to_thread, count, part))
        await run.progress(number, len(parts), f"part {number} of {len(parts)}")
    return merge(counts)


@action(pipeline.ACTION, queue="adventure_pipeline", retry=Retry(max_attempts=3, base=30), timeout=600)
async def generate_adventure_entry(run: Run, adventure_id: UUID, entry_id: UUID, user_id: str | None = None) -> Entry:
    """Write an entry of an adventure: text and choices, translation, sound, words. Submitted by `POST /adventures`."""
    shelf = AdventureShelf(procrastinate_app.connector.engine, run_id=run.id)
    entry = Entry(adventure_id=adventure_id, entry_id=entry_id)
    return await pipeline.generate(run, run.clients, shelf, entry, owner=user_id)


@action(lock="backlog")
async def sync_backlog(run: Run) -> sync.SyncReport:
    """Make the backlog what the sheet says: what was added, changed, removed, and which rows are wrong."""
    return await sync.sync_backlog(run, run.clients.sheets, backlog_shelf(), settings.backlog_sheet)


@action(lock="backlog")
async def recompute_scores(run: Run) -> sync.ScoreReport:
    """Give every item of the backlog its scores, RICE and WSJF."""
    return await sync.recompute_scores(run, backlog_shelf())


@action(lock="backlog")
async def write_scores(run: Run) -> writing.WriteReport:
    """Write the scores into the sheet, where it says something else."""
    return await writing.write_scores(run, run.clients.sheets, backlog_shelf(), settings.backlog_sheet)


@action()
async def enrich_items(run: Run) -> enriching.EnrichReport:
    """Ask a language model what kind of work those items of the backlog are that have no category."""
    return await enriching.enrich_items(run, run.clients.anthropic, backlog_shelf())


@action()
async def full_sync(
    run: Run,
    policy: Annotated[
        Policy, Field(examples=["cancel"], description="whether to go on after one that fails")
    ] = "cancel",
) -> list[full.Stage]:
    """Sync the backlog, recompute its scores and write them into the sheet, each as a run of its own."""
    return await full.sync_fully(run, policy)


@action()
async def process_file(run: Run, key: FileKey) -> ProcessedFile:
    """Say what a stored file is: type, checksum, text, pages, columns; of an image also a thumbnail."""
    return await process_stored(run, run.clients.storage, key)


@action()
async def send_email(run: Run, mail: Mail) -> MailSent:
    """Send a mail: text, HTML and stored files, to up to 50 addresses."""
    return await send_mail(run, run.id, mail, run.clients.mailer, run.clients.storage)


@procrastinate_app.periodic(cron="0 2 * * *", missed="one")
@action(lock="news_digest", retry=Retry(max_attempts=5, base=60, cap=3600), timeout=1800)
async def generate_nightly_news_digest(
    run: Run,
    timestamp: Annotated[
        int | None,
        Field(ge=0, le=LAST_SECOND, examples=[None], description="whose night, in seconds since 1970; none: this one"),
    ] = None,
) -> Digest:
    """Every night: what is new in the feeds, summarised, stored and mailed; one digest a night."""
    feeds = settings.digest_feeds or ([feeds_stub.FEED] if settings.stubs(None) else [])
    shelf = DigestShelf(procrastinate_app.connector.engine)
    return await make_digest(run, run.clients, shelf, Order(run.id, timestamp, feeds, settings.digest_to))


@action(bulk.NAME)
async def bulk_runs(run: Run, asked: BulkRuns) -> BulkDone:
    """Cancel, retry or replay many runs of whoever submits it: see `POST /runs/bulk`."""
    engine = procrastinate_app.connector.engine
    async with contextlib.aclosing(Intake(engine, timeout=settings.db_timeout_seconds)) as intake:
        return await bulk.perform(run, asked, Hands(engine, procrastinate_app.job_manager, action, intake))


@action(children.CANCEL_CHILDREN)
async def cancel_children(run: Run, run_id: str) -> Cancelled:
    """Cancel the children of a run that was cancelled. The end of that run submits it."""
    engine, manager = procrastinate_app.connector.engine, procrastinate_app.job_manager
    return Cancelled(runs=await children.cancel_orphans(engine, manager, run_id, asker_id=run.id))


@procrastinate_app.periodic(cron="17 3 * * *")
@action(queue="maintenance", retry=Retry(max_attempts=3, base=60), scope="admin")
async def prune_ledger(
    days: Annotated[int, Field(ge=1)] = settings.retention_days,
    timestamp: int = 0,  # noqa: ARG001 - cron says which tick this is
) -> Pruned:
    """Every night: delete the runs, deliveries of webhooks, entries of the audit log and digests of long ago."""
    engine, old = procrastinate_app.connector.engine, timedelta(days=days)
    return Pruned(
        runs=await service.prune(engine, older_than=old),
        deliveries=await deliveries.prune(engine, older_than=old),
        audit_entries=await audit.prune(engine, older_than=timedelta(days=settings.audit_days)),
        digests=await DigestShelf(engine).prune(older_than=timedelta(days=settings.digest_days)),
    )


@action(deliveries.ACTION, queue=deliveries.QUEUE, retry=deliveries.RETRY)
async def deliver_webhook(run: Run, delivery_id: str) -> Delivered:
    """Tell a webhook endpoint that a run has ended. Submitted by the end of that run, and by nobody else."""
    return await deliveries.deliver(procrastinate_app.connector.engine, seal, run, delivery_id)
