"""What makes a request safe to send again: whose key it is, and what was sent with it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from pydantic import BaseModel

from app.runs.queries import NewRun


@dataclass(frozen=True, slots=True)
class Idempotency:
    """An `Idempotency-Key` and where it was sent.

    The same key of the same principal, sent with the same to the same place, is the same request; it is known for 24
    hours at least.
    """

    principal: str
    key: str
    place: str
    """Method and path."""

    def of_item(self, number: int) -> Idempotency:
        """The key of one request of a batch."""
        return replace(self, key=f"{self.key}#{number}")

    def stamp(self, body: BaseModel) -> NewRun:
        """What is stored with the run: the key, and a fingerprint of what was sent, however it was written."""
        sent = json.dumps(
            body.model_dump(mode="json", exclude_unset=True), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        fingerprint = hashlib.sha256(f"{self.place}\n{sent}".encode()).hexdigest()
        return {"principal": self.principal, "idempotency_key": self.key, "fingerprint": fingerprint}
