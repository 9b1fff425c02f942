"""What a file is, by its content, and what its name says it is."""

from __future__ import annotations

import mimetypes

import filetype

from app.errors import Rejected

PDF = "application/pdf"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
CSV = "text/csv"
TEXT = "text/plain"
OCTETS = "application/octet-stream"
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")

_HAS_MAGIC = (PDF, XLSX, *IMAGES)


def named_type(name: str) -> str | None:
    """The media type that the name's ending stands for; `None` if for none that is known."""
    ending = name.rpartition(".")[2].lower()
    return {"xlsx": XLSX, "csv": CSV, "tsv": CSV, "webp": "image/webp"}.get(ending) or mimetypes.guess_type(name)[0]


def type_of(data: bytes, name: str) -> str:
    """The media type by the first bytes; of text, the name decides which.

    Raises:
        Rejected: the name promises a PDF, a workbook or an image, and the content begins like nothing at all.
    """
    found = filetype.guess_mime(data)
    if found is not None:
        return str(found)
    named = named_type(name)
    if named in _HAS_MAGIC:
        raise Rejected(f"The file is named like {named}, and does not begin like one. Look whether it is whole.")
    if not _is_text(data):
        return OCTETS
    return CSV if named == CSV else TEXT


def _is_text(data: bytes) -> bool:
    try:
        return "\x00" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False
