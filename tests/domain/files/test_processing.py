"""A file is what its content is, and a hostile one is a clear refusal and nothing worse."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook
from PIL import Image
from pypdf import PdfWriter
from pypdf.generic import DictionaryObject, NameObject, StreamObject
from tests.support import readers

from app.config import Settings
from app.domain.files.child import read_in_child
from app.domain.files.processing import ProcessedFile
from app.errors import Rejected
from app.outbound.clients import Clients, open_clients
from app.tasks import action
from app.testing import perform

MIB = 1024 * 1024


@pytest.fixture
async def clients(tmp_path: Path) -> AsyncIterator[Clients]:
    async with open_clients(Settings(_env_file=None, environment="test", data_dir=tmp_path)) as clients:
        yield clients


async def processed(clients: Clients, name: str, data: bytes) -> ProcessedFile:
    key = f"uploads/{name}"
    await clients.storage.put(key, data, "application/octet-stream")
    done = await perform(action["process_file"], {"key": key}, clients=clients)
    return ProcessedFile.model_validate(done.result)


def image(kind: str = "PNG", size: tuple[int, int] = (640, 320)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind)
    return buffer.getvalue()


def pdf(content: bytes = b"", *, pages: int = 1, password: str | None = None) -> bytes:
    writer, buffer = PdfWriter(), io.BytesIO()
    for _ in range(pages):
        writer.add_blank_page(200, 200)
    if content:
        stream = StreamObject()
        stream.set_data(content)
        font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
        made = DictionaryObject({NameObject(name): NameObject(value) for name, value in font.items()})
        fonts = DictionaryObject({NameObject("/F1"): made})
        writer.pages[0][NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        writer.pages[0][NameObject("/Contents")] = writer._add_object(stream.flate_encode())
    if password is not None:
        writer.encrypt(password)
    writer.write(buffer)
    return buffer.getvalue()


def xlsx(*rows: list[Any], **members: bytes) -> bytes:
    book, buffer = Workbook(), io.BytesIO()
    for row in rows:
        book.worksheets[0].append(row)
    book.save(buffer)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"xl/media/{name}", content)
    return buffer.getvalue()


def laughs() -> bytes:
    """A workbook whose sheet is a billion laughs."""
    entities = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 11))
    sheet = (
        f"<!DOCTYPE w [{entities}]>"
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1">'
        '<c r="A1" t="str"><v>&a10;</v></c></row></sheetData></worksheet>'
    )
    honest, made = io.BytesIO(xlsx(["a"])), io.BytesIO()
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            is_sheet = member.filename == "xl/worksheets/sheet1.xml"
            target.writestr(member.filename, sheet if is_sheet else source.read(member))
    return made.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> bytes:
    """Some hundred bytes that claim 10 gigapixels."""
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


def talkative_png() -> bytes:
    """A small image with a comment of 200 MiB."""
    comment = chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(200 * MIB)))
    small = image()
    return small[:33] + comment + small[33:]


async def test_an_image_has_its_size_and_a_thumbnail(clients: Clients) -> None:
    data = image("JPEG")
    told = await processed(clients, "a.jpg", data)
    assert (told.content_type, told.is_what_it_says, told.bytes) == ("image/jpeg", True, len(data))
    assert told.sha256 == hashlib.sha256(data).hexdigest()
    assert told.image is not None
    assert (told.image.width, told.image.height) == (640, 320)
    small = Image.open(io.BytesIO(await clients.storage.get(told.image.thumbnail, max_bytes=MIB)))
    assert (small.format, small.size) == ("PNG", (256, 128))


async def test_a_pdf_has_its_pages_and_its_text(clients: Clients) -> None:
    told = await processed(clients, "a.pdf", pdf(b"BT /F1 12 Tf (hello) Tj ET", pages=3))
    assert told.document is not None
    assert (told.content_type, told.document.pages, told.document.text) == ("application/pdf", 3, "hello")


async def test_a_csv_has_a_profile_of_its_columns(clients: Clients) -> None:
    lines = 'id;price;day;note\r\n1;2.5;2026-01-01;a\r\n2;3;2026-01-02;\r\n3;;;"b;\r\nc"\r\n'
    told = await processed(clients, "a.csv", lines.encode("utf-8-sig"))
    assert told.table is not None
    assert told.table.rows == 3
    assert [(column.name, column.kind, column.filled) for column in told.table.columns] == [
        ("id", "integer", 3), ("price", "number", 2), ("day", "date", 2), ("note", "text", 2)
    ]  # fmt: skip


async def test_a_workbook_has_a_profile_of_its_first_sheet(clients: Clients) -> None:
    told = await processed(clients, "a.xlsx", xlsx(["id", None], [1, "x"], [None, None], [2.5, "y", True]))
    assert told.table is not None
    assert told.table.rows == 2
    assert [(column.name, column.kind, column.distinct) for column in told.table.columns] == [
        ("id", "number", 2), ("column 2", "text", 2), ("column 3", "text", 1)
    ]  # fmt: skip


async def test_a_text_has_its_text_up_to_a_limit(clients: Clients) -> None:
    told = await processed(clients, "a.txt", "grüße ".encode() * 20_000)
    assert told.document is not None
    assert (len(told.document.text), told.document.is_cut) == (50_000, True)


async def test_what_cannot_be_read_has_its_checksum(clients: Clients) -> None:
    told = await processed(clients, "a.bin", b"\x00\xff\xfe")
    assert (told.content_type, told.named_type, told.document) == (
        "application/octet-stream",
        "application/octet-stream",
        None,
    )


@pytest.mark.parametrize(
    ("name", "data", "content_type"),
    [
        ("report.pdf", image(), "image/png"),
        ("a.png", pdf(), "application/pdf"),
        ("notes.txt", xlsx(), "application/vnd"),
    ],
)
async def test_a_name_that_lies_is_told(clients: Clients, name: str, data: bytes, content_type: str) -> None:
    told = await processed(clients, name, data)
    assert told.content_type.startswith(content_type)
    assert not told.is_what_it_says


HOSTILE: list[tuple[str, Callable[[], bytes], str]] = [
    ("named.pdf", lambda: b"hello", "does not begin like one"),
    ("named.xlsx", lambda: b"a,b\n1,2\n", "does not begin like one"),
    ("empty.png", lambda: b"", "does not begin like one"),
    ("cut.pdf", lambda: pdf(pages=5)[:60], "damaged"),
    ("cut.png", lambda: image()[:60], "damaged"),
    ("cut.xlsx", lambda: xlsx(["a"])[:2000], "damaged"),
    ("locked.pdf", lambda: pdf(password="secret"), "locked by a password"),
    ("bomb.pdf", lambda: pdf(bytes(300 * MIB)), r"LimitReachedError"),
    ("huge.png", huge_png, "100000 by 100000 pixels"),
    ("talkative.png", talkative_png, "damaged|memory"),
    ("bomb.xlsx", lambda: xlsx(["a"], bomb=bytes(201 * MIB)), "bytes when unpacked"),
    ("laughs.xlsx", laughs, "damaged|memory"),
    ("wide.csv", lambda: b"a," * 600 + b"\n", "more than 500 columns"),
    ("long.csv", lambda: b'a\n"' + b"x" * 200_000 + b'"\n', "damaged"),
]


@pytest.mark.parametrize(("name", "make", "told"), HOSTILE, ids=[name for name, _, _ in HOSTILE])
async def test_a_hostile_file_is_refused_and_the_next_one_is_read(
    clients: Clients, name: str, make: Callable[[], bytes], told: str
) -> None:
    with pytest.raises(Rejected, match=told):
        await processed(clients, name, make())
    assert (await processed(clients, "honest.png", image())).image is not None


async def test_a_reader_that_dies_hangs_or_eats_takes_nothing_along(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Rejected, match="too much memory"):
        await read_in_child(readers.eat, b"")
    with pytest.raises(Rejected, match="broke its reader"):
        await read_in_child(readers.die, b"")
    assert await read_in_child(readers.measure, b"abc") == 3
    monkeypatch.setattr("app.domain.files.child.SECONDS", 0.2)
    with pytest.raises(Rejected, match="Send a simpler one"):
        await read_in_child(readers.hang, b"")
