"""Say what a stored file is and what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

from pydantic import BaseModel

from app.domain.files.child import read_in_child
from app.domain.files.documents import Document, Picture, read_image, read_pdf, read_text
from app.domain.files.kinds import CSV, IMAGES, PDF, TEXT, XLSX, named_type, type_of
from app.domain.files.tables import Table, read_csv, read_workbook
from app.domain.journal import Journal
from app.outbound.storage.interface import Storage

LARGEST_BYTES = 64 * 1024 * 1024

_READERS: dict[str, Callable[[bytes], Document | Picture | Table]] = {
    PDF: read_pdf,
    TEXT: read_text,
    CSV: read_csv,
    XLSX: read_workbook,
    **dict.fromkeys(IMAGES, read_image),
}


class ImageInfo(BaseModel):
    """An image, and where a small one of it is."""

    width: int
    """Pixels, as the file has them."""
    height: int
    thumbnail: str
    """The key of a PNG of at most 256 by 256."""


class ProcessedFile(BaseModel):
    """What a file is. Of `document`, `image` and `table` at most one is there."""

    key: str
    bytes: int
    sha256: str
    content_type: str
    """By its content, whatever it is called."""
    named_type: str | None
    """By its name; `None` if the name says nothing."""
    is_what_it_says: bool
    """Whether the two agree."""
    document: Document | None = None
    image: ImageInfo | None = None
    table: Table | None = None


async def process(journal: Journal, storage: Storage, key: str) -> ProcessedFile:
    """Read a stored file. Of what cannot be read there is size, checksum and type.

    Raises:
        Rejected: there is no such file, or it is damaged, a bomb, or not what it begins like.
        Unavailable: the storage does not answer.
    """
    data = await storage.get(key, max_bytes=LARGEST_BYTES)
    name = key.rpartition("/")[2]
    content_type, named = type_of(data, name), named_type(name)
    sha256 = hashlib.sha256(data).hexdigest()
    described = partial(
        ProcessedFile,
        key=key,
        bytes=len(data),
        sha256=sha256,
        content_type=content_type,
        named_type=named,
        is_what_it_says=named in (None, content_type),
    )
    read = _READERS.get(content_type)
    match read and await read_in_child(read, data):
        case Document() as document:
            return described(document=document)
        case Table() as table:
            return described(table=table)
        case Picture() as picture:
            # Beside the file: whoever may see the one may see the other.
            thumbnail = f"{key.removesuffix(name)}thumbnail-{sha256[:16]}.png"
            await journal.step("thumbnail", storage.put, thumbnail, picture.thumbnail, "image/png")
            return described(image=ImageInfo(width=picture.width, height=picture.height, thumbnail=thumbnail))
        case None:
            return described()
