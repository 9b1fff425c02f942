"""Web pages of other sites: a browser sends what they ask for to whatever it can reach, as if its user had asked."""

from __future__ import annotations

from starlette.datastructures import Headers

SAFE_METHODS = {"GET", "HEAD"}
"""Of which nothing is changed; what they are answered no page of another site can read."""


def is_of_another_site(headers: Headers) -> bool:
    """Whether a page asks that is not of this API's own origin.

    By `Sec-Fetch-Site`, or from browsers that do not send it by `Origin`; who sends neither is no browser. That is the
    algorithm of Go's `http.CrossOriginProtection`.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()
