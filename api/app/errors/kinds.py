"""Whether asking again will help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fastapi_rfc9457 import Problem
from pydantic import NonNegativeInt


class Refused(Problem, abstract=True):
    """The request cannot be done as it is; asking again will not help."""

    retryable: ClassVar[bool] = False


class NotNow(Problem, abstract=True):
    """The request may succeed later; `Retry-After` says when to ask again."""

    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "Seconds to wait before asking again."}
    retry_after: NonNegativeInt = 1

    def response_headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after)}
