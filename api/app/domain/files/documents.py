"""Read PDF, images and text. Work for a child process: what is read here may be hostile."""

from __future__ import annotations

import io
import re

from pydantic import BaseModel

from app.errors import Rejected

MAX_TEXT = 50_000
MAX_PIXELS = 50_000_000
THUMBNAIL_PIXELS = 256

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Document(BaseModel):
    """Text, and of a PDF its pages."""

    text: str
    """Up to 50,000 characters."""
    is_cut: bool
    """Whether there is more."""
    pages: int | None = None


class Picture(BaseModel):
    """An image, and a small one of it."""

    width: int
    height: int
    thumbnail: bytes
    """PNG of at most 256 by 256."""


def read_pdf(data: bytes) -> Document:
    """Pages and text of a PDF."""
    from pypdf import PdfReader  # a fifth of a second that only those pay who read one

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise Rejected("The PDF is locked by a password. Send it without one.")
    text, pages = "", len(reader.pages)
    for page in reader.pages:
        text += page.extract_text() + "\n"
        if len(text) > MAX_TEXT:
            break
    return _document(text.strip(), pages=pages)


def read_text(data: bytes) -> Document:
    """A text in UTF-8."""
    return _document(data.decode("utf-8-sig"))


def read_image(data: bytes) -> Picture:
    """Size and thumbnail of an image."""
    from PIL import Image, ImageOps  # heavy, as above

    # Counted below, where the refusal says how many.
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "GIF", "WEBP"]) as image:
        width, height = image.size
        # Before anything is unpacked: a file of some kilobytes may claim gigapixels.
        if width * height > MAX_PIXELS:
            raise Rejected(f"The image has {width} by {height} pixels. Send one of at most {MAX_PIXELS:,}.")
        image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        small = io.BytesIO()
        ImageOps.exif_transpose(image).convert("RGBA").save(small, "PNG")
    return Picture(width=width, height=height, thumbnail=small.getvalue())


def _document(text: str, pages: int | None = None) -> Document:
    clean = UNSTORABLE.sub("", text)
    return Document(text=clean[:MAX_TEXT], is_cut=len(clean) > MAX_TEXT, pages=pages)
