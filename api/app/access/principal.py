"""Who calls, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a credential allows. Stored in rows and sent in tokens, so a name never changes meaning."""

    READ = "runs:read"
    """Look at one's own runs."""
    WRITE = "runs:write"
    """Submit runs, and cancel, retry or replay one's own."""
    ADMIN = "admin"
    """Everything, with everybody's runs; queues, schedules, keys."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever a request comes from."""

    actor: str
    """As the audit log names it, such as `secret`, `key:k_3f9a…` or `jwt:ada`."""
    owner: str | None
    """Whose runs it submits and sees. `None`: its runs belong to nobody, and it sees everybody's."""
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether it has the scope, or the one that implies all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


EVERYTHING = frozenset(Scope)
LOCAL = Principal("local", None, EVERYTHING)
"""Whoever calls without a credential, where that is allowed: on loopback, or with ALLOW_ANONYMOUS."""
SECRET = Principal("secret", "secret", frozenset({Scope.READ, Scope.WRITE}))
"""Whoever has the shared secret: a machine that submits its own runs, and not an administrator."""
