"""How files are called."""

from __future__ import annotations

import re

from app.errors import Rejected

LONGEST_KEY = 512

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,199})*", re.ASCII)


def checked_key(key: str) -> str:
    """The key, if it can be one in a folder, in S3 and in a URL alike.

    Raises:
        Rejected: it cannot, as `../secrets` cannot.
    """
    if len(key) > LONGEST_KEY or not _KEY.fullmatch(key):
        raise Rejected(
            f"A file's key is up to {LONGEST_KEY} of A-Z a-z 0-9 . _ - in parts with / between them, "
            "each of which begins with a letter, a digit or _."
        )
    return key


def no_such_file(key: str) -> Rejected:
    """The error where there is nothing under the key."""
    return Rejected(f"There is no file {key!r}. Upload it with POST /files, and give the key of the answer.")


def too_large(key: str, max_bytes: int) -> Rejected:
    """The error where there is more under the key than was asked for."""
    return Rejected(f"The file {key!r} has more than the {max_bytes} bytes that may be read.")
