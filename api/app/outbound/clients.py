"""What an action may call: one client a neighbour, opened when a worker starts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from starlette.types import ASGIApp

from app.config import Settings
from app.outbound.anthropic import stub as anthropic_stub
from app.outbound.anthropic.client import AnthropicClient, open_anthropic_client
from app.outbound.deepl import stub as deepl_stub
from app.outbound.deepl.client import DeepLClient, open_deepl_client
from app.outbound.embeddings.client import Embeddings
from app.outbound.feeds import stub as feeds_stub
from app.outbound.gemini import stub as gemini_stub
from app.outbound.gemini.client import GeminiClient, open_gemini_client
from app.outbound.google_sheets import stub as google_sheets_stub
from app.outbound.google_sheets.client import SheetsClient
from app.outbound.smtp.client import make_mailer
from app.outbound.smtp.interface import Mailer
from app.outbound.spacy.client import SpacyClient
from app.outbound.storage.client import open_storage
from app.outbound.storage.interface import Storage
from app.outbound.storage.rooms import OwnFiles
from app.outbound.stubs import Stubs
from app.outbound.web.client import WebClient, open_web_client
from app.outbound.webhooks.client import WebhookClient, open_webhook_client

STUBS: dict[str, ASGIApp] = {
    "anthropic": anthropic_stub.stub,
    "deepl": deepl_stub.stub,
    "feeds": feeds_stub.stub,
    "gemini": gemini_stub.stub,
    "google_sheets": google_sheets_stub.stub,
}
"""The stub of each vendor that has one."""


@dataclass(frozen=True)
class Clients:
    """The outbound clients of one worker, shared by its runs."""

    anthropic: AnthropicClient
    deepl: DeepLClient
    gemini: GeminiClient
    spacy: SpacyClient
    sheets: SheetsClient
    web: WebClient
    webhooks: WebhookClient
    storage: Storage
    embeddings: Embeddings
    mailer: Mailer

    def of(self, owner: str | None) -> Clients:
        """As runs of this owner may use them: the uploads of others are not there. Runs of nobody see everybody's."""
        return self if owner is None else replace(self, storage=OwnFiles(self.storage, owner))


@contextlib.asynccontextmanager
async def open_clients(settings: Settings) -> AsyncGenerator[Clients]:
    """Open every client, and close them when the worker ends."""
    production = settings.environment == "production"
    stubs = Stubs(STUBS, served_at=settings.stubs_url)
    played = {feeds_stub.HOST: lambda: stubs.url("feeds")} if settings.stubs(None) else None
    async with (
        contextlib.aclosing(stubs),
        open_anthropic_client(settings, stubs) as anthropic,
        open_deepl_client(settings, stubs) as deepl,
        open_gemini_client(settings, stubs) as gemini,
        open_web_client(allow_private=not production, played=played) as web,
        open_webhook_client(production=production, timeout=settings.webhook_timeout_seconds) as webhooks,
        open_storage(settings) as storage,
    ):
        yield Clients(
            anthropic=anthropic,
            deepl=deepl,
            gemini=gemini,
            spacy=SpacyClient(),
            sheets=SheetsClient(settings, stubs),
            web=web,
            webhooks=webhooks,
            storage=storage,
            embeddings=Embeddings(),
            mailer=make_mailer(settings),
        )
