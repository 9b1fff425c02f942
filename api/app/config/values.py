"""What the values of settings look like. None of the messages repeats a value: some are secrets."""

from __future__ import annotations

import base64
import json
import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

ADDRESS = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?$"
"""Of mail."""
MOST_READERS = 50
LONGEST_FEED = 2048
"""Characters of its URL."""


def _parts(value: object) -> object:
    return tuple(each.strip() for each in value.split(",") if each.strip()) if isinstance(value, str) else value


def _postgresql(url: str) -> str:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("must look like postgresql+asyncpg://user:password@host/database") from None
    if parsed.drivername not in ("postgresql+asyncpg", "postgresql", "postgres"):
        raise ValueError(f"must start with postgresql+asyncpg://, not {parsed.drivername}://")
    return parsed.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


def _service_account(key: SecretStr) -> SecretStr:
    try:
        is_key = "private_key" in json.loads(key.get_secret_value())
    except (ValueError, TypeError):
        is_key = False
    if not is_key:
        raise ValueError("must be the JSON of a service account's key, as Google Cloud gives it")
    return key


def _fernet(keys: SecretStr) -> SecretStr:
    try:
        lengths = {len(base64.urlsafe_b64decode(each)) for each in keys.get_secret_value().split(",")}
    except ValueError:
        lengths = set[int]()
    if lengths != {32}:
        raise ValueError(
            "must be 32 bytes in URL-safe Base64. Make it: python -c "
            "'import base64, secrets; print(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())'"
        )
    return keys


def _mail_server(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        is_server = parts.scheme in ("smtp", "smtps") and parts.hostname and parts.port != 0
    except ValueError:
        is_server = False
    if not is_server:
        raise ValueError("must look like smtp://user:password@host:587")
    return url


def _feeds(urls: tuple[str, ...]) -> tuple[str, ...]:
    if not all(map(_is_feed, urls)):
        raise ValueError("must be http or https URLs without user name and password, separated by commas")
    return urls


def _is_feed(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_place = parts.hostname is not None and parts.port != 0 and parts.username is None
    except ValueError:
        return False
    is_plain = url.isascii() and url.isprintable() and len(url) <= LONGEST_FEED
    return parts.scheme in ("http", "https") and is_place and is_plain


def _readers(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if len(addresses) > MOST_READERS or not all(re.match(ADDRESS, each) for each in addresses):
        raise ValueError(f"must be up to {MOST_READERS} mail addresses, separated by commas")
    return addresses


def _proxies(networks: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for each in networks:
            ip_network(each)
    except ValueError:
        # Not uvicorn's `*` either: who believes everybody is told any address by anybody.
        raise ValueError("must be addresses or networks of proxies, separated by commas") from None
    return networks


def _in_small_letters(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)]
"""What is separated by commas."""
HostNames = Annotated[Listed, AfterValidator(_in_small_letters)]
Proxies = Annotated[Listed, AfterValidator(_proxies)]
FeedUrls = Annotated[Listed, AfterValidator(_feeds)]
Readers = Annotated[Listed, AfterValidator(_readers)]
DatabaseUrl = Annotated[str, AfterValidator(_postgresql)]
"""Of PostgreSQL; whatever driver it names, asyncpg is the one."""
WebUrl = Annotated[str, Field(pattern=r"^https?://")]
MailServer = Annotated[SecretStr, AfterValidator(_mail_server)]
FernetKeys = Annotated[SecretStr, AfterValidator(_fernet)]
"""One, or several with commas."""
ServiceAccount = Annotated[SecretStr, AfterValidator(_service_account)]
