"""One spelling for each URL, so that a crawl knows where it was."""

from __future__ import annotations

from urllib.parse import urlsplit

from w3lib.url import canonicalize_url

DEFAULT_PORTS = {"http": 80, "https": 443}


def canonical(url: str) -> str:
    """The URL in the spelling that all its other spellings have too: no fragment, arguments in order."""
    return canonicalize_url(url)


def site_of(url: str) -> str:
    """The host of a URL that can be fetched, with its port if that is not the usual one: `example.com`."""
    parts = urlsplit(url)
    port = "" if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.hostname}{port}"
