"""URLs: one spelling for each, so that a crawl knows where it was, and where a link leads to."""

from __future__ import annotations

from urllib.parse import urldefrag, urljoin, urlsplit

from w3lib.url import canonicalize_url

MAX_URL = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}


def canonical(url: str) -> str:
    """The URL in the spelling that all its other spellings have too: no fragment, arguments in order."""
    return canonicalize_url(url)


def site_of(url: str) -> str:
    """The host of a URL that can be fetched, with its port if that is not the usual one: `example.com`."""
    parts = urlsplit(url)
    port = "" if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.hostname}{port}"


def absolute(href: str, base: str) -> str | None:
    """Where a link on the page `base` leads to, without fragment; `None`: nowhere that can be fetched."""
    try:
        target = urldefrag(urljoin(base, href.strip())).url.replace(" ", "%20")
        named = urlsplit(target)
        fetchable = named.scheme in ("http", "https") and named.hostname and named.port != 0
    except ValueError:  # brackets that are not closed, or a port that is none
        return None
    return target if fetchable and target.isprintable() and len(target) <= MAX_URL else None
