"""Files over HTTP: sent by who may submit runs, read by whoever has a signed URL."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import mimetypes
import re
import secrets
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi_rfc9457.server import problems
from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import PathConvertor, register_url_convertor

from app.errors import (
    ActionError,
    BodyTooLarge,
    Fault,
    FileNotFound,
    Forbidden,
    InvalidInput,
    Rejected,
    StorageUnavailable,
    TooBusy,
    Unauthorized,
    UnsupportedMediaType,
)
from app.outbound.storage.objects import FolderStorage
from app.outbound.storage.rooms import room_of
from app.routers.dependencies import ServicesDep
from app.routers.security import Writes
from app.routers.strict import StrictRoute


class _AnyPath(PathConvertor):
    """Starlette's own ends at the end of a line, and what is behind it would get another 404 than ours."""

    regex = "(?s:.*)"


register_url_convertor("any", _AnyPath())

router = APIRouter(prefix="/files", tags=["files"], route_class=StrictRoute)

LARGEST_UPLOAD_BYTES = 20 * 1024 * 1024
LARGEST_FILE_BYTES = 64 * 1024 * 1024
"""Of a file that is served. What actions make may be larger than what may be uploaded."""
URL_SECONDS = 3600
OCTETS = "application/octet-stream"

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}")
_BINARY = {"content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}}}


class StoredFile(BaseModel):
    """A file as it is kept."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "key": "uploads/2bd806c9/0f8fad5bd9cb469fa165/report.pdf",
                    "bytes": 48_201,
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "content_type": "application/pdf",
                    "url": "/files/uploads/2bd806c9/0f8fad5bd9cb469fa165/report.pdf?expires=1767607800&signature=x",
                }
            ]
        }
    )

    key: str = Field(description="What actions know the file by.")
    bytes: int
    sha256: str = Field(description="Of the content, in hexadecimal.")
    content_type: str = Field(description="As it was declared; `process_file` says what the file is.")
    url: str = Field(description="Where it can be read for an hour, by anybody.")


@router.post(
    "",
    status_code=201,
    operation_id="uploadFile",
    openapi_extra={"requestBody": {"required": True, "description": "The file itself, at most 20 MiB.", **_BINARY}},
    responses=problems(
        Unauthorized, Forbidden, BodyTooLarge, UnsupportedMediaType, InvalidInput, StorageUnavailable, TooBusy
    ),
)
async def upload_file(
    request: Request,
    services: ServicesDep,
    principal: Writes,
    response: Response,
    name: Annotated[
        str, Query(description="Becomes the end of the key.", pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")
    ] = "file",
) -> StoredFile:
    """Store a file, sent as the body with its `Content-Type`, and get the key that actions take."""
    content_type = _content_type(request)
    key = f"{room_of(principal.owner)}/{secrets.token_hex(10)}/{name}"
    async with _one_more(services.uploads):
        data = await _body(request)
        try:
            # First: a file that nobody can read is not stored.
            url = await services.storage.signed_url(key, seconds=URL_SECONDS)
            await services.storage.put(key, data, content_type)
        except ActionError as error:
            raise StorageUnavailable(detail=str(error)) from error
    response.headers["Location"] = url
    sha256 = hashlib.sha256(data).hexdigest()
    return StoredFile(key=key, bytes=len(data), sha256=sha256, content_type=content_type, url=url)


@router.get(
    "/{key:any}",
    operation_id="readFile",
    response_class=Response,
    responses={200: {"description": "The file.", **_BINARY}} | problems(FileNotFound),
)
async def read_file(
    key: Annotated[str, Path(description="The key of the file.")],
    services: ServicesDep,
    expires: Annotated[str, Query(description="As in the signed URL.", examples=["1767607800"])] = "",
    signature: Annotated[str, Query(description="As in the signed URL.", examples=["mF2wX0"])] = "",
) -> Response:
    """Read a file by its signed URL. Whatever is wrong with the URL, the answer is the same."""
    storage = services.storage
    if not (isinstance(storage, FolderStorage) and storage.is_signed(key, expires=expires, signature=signature)):
        raise FileNotFound
    try:
        data = await storage.get(key, max_bytes=LARGEST_FILE_BYTES)
    except Rejected:
        raise FileNotFound from None
    name = key.rpartition("/")[2]
    return Response(
        data,
        media_type=mimetypes.guess_type(name)[0] or OCTETS,
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            # Whatever somebody has sent: a browser runs nothing of it in our name.
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "sandbox; default-src 'none'",
        },
    )


@contextlib.asynccontextmanager
async def _one_more(uploads: asyncio.Semaphore) -> AsyncGenerator[None]:
    """Hold a place among the uploads, which nobody waits for: what waits to be read must arrive in ten seconds."""
    if uploads.locked():
        raise TooBusy(detail="Too many files are being sent at this moment.")
    async with uploads:
        yield


def _content_type(request: Request) -> str:
    if "content-encoding" in request.headers:
        raise UnsupportedMediaType(detail="Send the file as it is, without Content-Encoding.")
    declared = request.headers.get("content-type", OCTETS).partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(declared):
        raise UnsupportedMediaType(detail="Send the file's Content-Type, such as application/pdf.")
    return declared


async def _body(request: Request) -> bytes:
    """The body, which is no longer read once it is too large."""
    too_large = BodyTooLarge(detail=f"The file is larger than {LARGEST_UPLOAD_BYTES} bytes.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > LARGEST_UPLOAD_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_UPLOAD_BYTES:
            raise too_large
    if not body:
        raise InvalidInput(errors=[Fault(pointer="", detail="Send the file as the body.", type="missing")])
    return bytes(body)
