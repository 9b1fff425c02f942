"""Files in a folder, over HTTP: read by whoever has a signed URL."""

from __future__ import annotations

import mimetypes
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from fastapi_rfc9457.server import problems

from app.errors import FileNotFound, Rejected
from app.outbound.storage.objects import FolderStorage
from app.routers.dependencies import ServicesDep
from app.routers.strict import StrictRoute

router = APIRouter(prefix="/files", tags=["files"], route_class=StrictRoute)

OCTETS = "application/octet-stream"
LARGEST_FILE_BYTES = 64 * 1024 * 1024
"""Of a file that is served. What actions make may be larger than what may be uploaded."""


@router.get(
    "/{key:path}",
    operation_id="readFile",
    response_class=Response,
    responses={200: {"description": "The file.", "content": {OCTETS: {"schema": {"type": "string"}}}}}
    | problems(FileNotFound),
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
