"""Adventures: stories in a language that somebody learns. Each entry is written by a run."""

from __future__ import annotations

import contextlib
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi_rfc9457.server import problems
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.adventures.pipeline import ACTION
from app.domain.adventures.story import supports
from app.errors import (
    ActionError,
    AdventureNotFound,
    ChoiceDecided,
    ChoiceNotFound,
    Fault,
    Forbidden,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    InvalidIdempotencyKey,
    InvalidInput,
    QuotaExceeded,
    Unauthorized,
)
from app.observability.tracing import carried_trace
from app.outbound.postgres import adventures
from app.outbound.postgres.database import autocommit
from app.outbound.spacy.client import LANGUAGES
from app.routers.adventure_schemas import (
    AdventureCreate,
    AdventurePage,
    AdventureRead,
    AdventureSummary,
    DecisionCreate,
    EntryRead,
)
from app.routers.dependencies import ServicesDep
from app.routers.headers import IDEMPOTENCY_KEY, idempotency
from app.routers.security import Principal, Reads, Writes
from app.routers.services import Services
from app.routers.strict import StrictRoute
from app.runs.schemas import RunCreate
from app.runs.submission import Origin, submit_within, submitted_before

router = APIRouter(prefix="/adventures", tags=["adventures"], route_class=StrictRoute)

_NOT_FOUND = "There is no adventure with that id."
AUDIO_SECONDS = 3600
AdventureId = Annotated[UUID, Path(description="The id that `POST /adventures` returned.")]


@router.post(
    "",
    status_code=201,
    operation_id="createAdventure",
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
    responses=problems(
        Unauthorized,
        Forbidden,
        InvalidIdempotencyKey,
        IdempotencyInFlight,
        InvalidInput,
        IdempotencyKeyReused,
        QuotaExceeded,
    ),
)
async def create_adventure(
    body: AdventureCreate, services: ServicesDep, principal: Writes, request: Request, response: Response
) -> AdventureRead:
    """Begin an adventure. Its first entry is being written: look again, or follow its run."""
    _check_languages(body)
    source = _origin(principal.owner, principal, request, body)
    async with services.engine.begin() as connection:
        if (run_id := await submitted_before(connection, source)) is not None:
            adventure_id = await adventures.get_adventure_of_run(connection, run_id)
        else:
            adventure_id = await adventures.insert_adventure(connection, owner=principal.owner, **body.model_dump())
            await _begin_entry(connection, services, adventure_id, source)
    _tell(response, adventure_id, is_replayed=run_id is not None)
    return await _read(services, adventure_id, owner=principal.owner)


@router.get("", operation_id="listAdventures", responses=problems(Unauthorized, Forbidden, InvalidInput))
async def list_adventures(
    services: ServicesDep,
    principal: Reads,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> AdventurePage:
    """Your adventures, the newest first."""
    async with autocommit(services.engine).connect() as connection:
        rows = await adventures.list_adventures(connection, owner=principal.owner, limit=limit + 1, after=cursor)
    items = [AdventureSummary(**row._mapping) for row in rows[:limit]]
    return AdventurePage(items=items, next=items[-1].id if len(rows) > limit else None)


@router.get(
    "/{adventure_id}",
    operation_id="getAdventure",
    responses=problems(Unauthorized, Forbidden, AdventureNotFound, InvalidInput),
)
async def get_adventure(adventure_id: AdventureId, services: ServicesDep, principal: Reads) -> AdventureRead:
    """One adventure, with all its entries."""
    return await _read(services, adventure_id, owner=principal.owner)


@router.post(
    "/{adventure_id}/decisions",
    status_code=201,
    operation_id="decide",
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
    responses=problems(
        Unauthorized,
        Forbidden,
        InvalidIdempotencyKey,
        AdventureNotFound,
        ChoiceNotFound,
        ChoiceDecided,
        IdempotencyInFlight,
        InvalidInput,
        IdempotencyKeyReused,
        QuotaExceeded,
    ),
)
async def decide(
    adventure_id: AdventureId,
    body: DecisionCreate,
    services: ServicesDep,
    principal: Writes,
    request: Request,
    response: Response,
) -> AdventureRead:
    """Decide how an adventure goes on. Its next entry is being written."""
    async with services.engine.begin() as connection:
        adventure = await adventures.get_adventure(connection, adventure_id, owner=principal.owner)
        if adventure is None:
            raise AdventureNotFound(detail=_NOT_FOUND)
        source = _origin(adventure.owner, principal, request, body)
        run_id = await submitted_before(connection, source)
        if run_id is None:
            await _insert_decision(connection, adventure_id, body.choice_id)
            await _begin_entry(connection, services, adventure_id, source)
    _tell(response, adventure_id, is_replayed=run_id is not None)
    return await _read(services, adventure_id, owner=principal.owner)


def _check_languages(body: AdventureCreate) -> None:
    if not supports(body.language, body.native_language):
        detail = (
            f"There are no stories in {body.language!r} for who knows {body.native_language!r}. Stories are told in "
            f"{', '.join(sorted(LANGUAGES))}, and translated into another language that DeepL knows."
        )
        raise InvalidInput(errors=[Fault(pointer="/language", detail=detail, type="unsupported_languages")])


def _origin(owner: str | None, principal: Principal, request: Request, body: BaseModel) -> Origin:
    return Origin(owner, carried_trace(request.headers), idempotency(request, principal), sent=body)


async def _insert_decision(connection: AsyncConnection, adventure_id: UUID, choice_id: UUID) -> None:
    entry_id = await adventures.get_entry_of_choice(connection, adventure_id, choice_id)
    if entry_id is None:
        raise ChoiceNotFound(detail="The adventure has no such choice.")
    if not await adventures.insert_decision(connection, entry_id, choice_id):
        raise ChoiceDecided(detail="It is decided how the adventure goes on there.")


async def _begin_entry(connection: AsyncConnection, services: Services, adventure_id: UUID, source: Origin) -> None:
    """The next entry and the run that writes it: with the caller's transaction, or not at all."""
    entry_id = await adventures.insert_entry(connection, adventure_id)
    params = {"adventure_id": str(adventure_id), "entry_id": str(entry_id), "user_id": source.owner}
    request = RunCreate(action=ACTION, params=params)
    run = await submit_within(services.intake, connection, services.actions.named(ACTION), request, source)
    await adventures.set_run(connection, entry_id, run_id=run.id)


def _tell(response: Response, adventure_id: UUID, *, is_replayed: bool) -> None:
    response.headers["Location"] = f"/adventures/{adventure_id}"
    if is_replayed:
        response.headers["Idempotent-Replayed"] = "true"


async def _read(services: Services, adventure_id: UUID, *, owner: str | None) -> AdventureRead:
    async with autocommit(services.engine).connect() as connection:
        row = await adventures.get_adventure(connection, adventure_id, owner=owner)
        if row is None:
            raise AdventureNotFound(detail=_NOT_FOUND)
        entries = await adventures.list_entries(connection, adventure_id)
    return AdventureRead(**row._mapping, entries=[await _entry(services, each) for each in entries])


async def _entry(services: Services, row: adventures.EntryRow) -> EntryRead:
    audio_url = None
    if row.audio_key is not None:
        # A storage that signs nothing takes no story away from its reader.
        with contextlib.suppress(ActionError):
            audio_url = await services.storage.signed_url(row.audio_key, seconds=AUDIO_SECONDS)
    return EntryRead(**row._mapping, audio_url=audio_url)
