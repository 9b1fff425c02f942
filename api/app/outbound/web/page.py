"""What came back: a page, read within bounds, and how to ask whether it has changed."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2

from app.errors import Rejected

LONGEST_VALIDATOR = 500
"""Characters. What is longer is not kept: then the page is fetched whole."""

CHARSET = re.compile(rb"""<meta[^>]+charset=["']?([\w-]+)""", re.IGNORECASE)
# Python's other codecs are not encodings of pages, and some ("punycode") take the square of the time.
PAGE_CODEC = re.compile(r"utf-(8|16)|ascii|iso8859|cp\d|koi8|gb|big5|euc|shift_jis|iso2022|mac")


@dataclass(frozen=True)
class Validators:
    """By what a server tells whether a page is still what it was (RFC 9110 §13)."""

    url: str
    """Whose they are. Nobody else is told them: what a redirect leads to may be another page tomorrow."""
    etag: str | None
    last_modified: str | None


@dataclass(frozen=True)
class Page:
    """What came back, with a status of 2xx."""

    url: str
    """Where it was in the end, after redirects."""
    status: int
    content_type: str
    """In lower case, without parameters."""
    encoding: str
    """A Python codec: what the header says, or the document's first kilobyte, or else UTF-8."""
    body: bytes
    """After decompression."""
    validators: Validators

    @property
    def text(self) -> str:
        """The body, with U+FFFD for what is not text in that encoding."""
        return self.body.decode(self.encoding, "replace")


def conditions(known: Validators | None, target: httpx2.URL) -> dict[str, str]:
    """The headers by which `target` may answer that it has not changed; none if `known` is of another URL."""
    if known is None or known.url != str(target):
        return {}
    headers = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in headers.items() if value is not None}


def content_type(response: httpx2.Response) -> str:
    """In lower case, without parameters."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def read_page(response: httpx2.Response, max_bytes: int) -> Page:
    """The page that is being answered.

    Raises:
        Rejected: it is larger, before or after decompression, or compressed in a way that was not asked for.
    """
    body = await _read_body(response, max_bytes)
    return Page(
        url=str(response.url),
        status=response.status_code,
        content_type=content_type(response),
        encoding=_encoding(response.charset_encoding, body),
        body=body,
        validators=Validators(
            url=str(response.url),
            etag=_validator(response, "ETag"),
            last_modified=_validator(response, "Last-Modified"),
        ),
    )


def _validator(response: httpx2.Response, name: str) -> str | None:
    """A header that can be stored, and sent back as it is."""
    value = response.headers.get(name, "")
    return value if 0 < len(value) <= LONGEST_VALIDATOR and value.isascii() and value.isprintable() else None


class _CappedStream(httpx2.AsyncByteStream):
    """A body as it comes over the wire: what decompresses to nothing must not go on for ever either."""

    def __init__(self, response: httpx2.Response, max_bytes: int) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        self._stream = response.stream
        self._host = response.url.host
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._stream:
            received += len(chunk)
            _expect_size(received, self._max_bytes, self._host)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _read_body(response: httpx2.Response, max_bytes: int) -> bytes:
    host = response.url.host
    # What is compressed twice may grow a million times before the first byte can be counted.
    if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", "gzip", "deflate"):
        raise Rejected(f"{host} compressed its answer in a way that was not asked for. Give another URL.")
    response.stream = _CappedStream(response, max_bytes)
    body = bytearray()
    async with contextlib.aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            body += chunk
            _expect_size(len(body), max_bytes, host)
    return bytes(body)


def _expect_size(size: int, max_bytes: int, host: str) -> None:
    if size > max_bytes:
        raise Rejected(f"{host} answered with more than {max_bytes:,} bytes. Give the URL of a smaller page.")


def _encoding(header: str | None, body: bytes) -> str:
    declared = CHARSET.search(body[:1024])
    label = header or (declared[1].decode() if declared else "utf-8")
    try:
        codec = codecs.lookup(label).name
    except (LookupError, ValueError):
        return "utf-8"
    return codec if PAGE_CODEC.match(codec) else "utf-8"
