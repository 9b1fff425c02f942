"""Who calls, and what they may do."""

from __future__ import annotations

import re
from collections.abc import Iterable
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


_OF_ACTION = re.compile(r"actions:([a-z][a-z0-9_.-]{0,63})")
"""`actions:echo` allows to submit runs of that action, with `runs:read` to replay them, and nothing else."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever a request comes from."""

    actor: str
    """As the audit log names it, such as `secret`, `key:k_3f9a…` or `jwt:ada`."""
    owner: str | None
    """Whose runs it submits and sees. `None`: its runs belong to nobody, and it sees everybody's."""
    scopes: frozenset[Scope]
    actions: frozenset[str] = frozenset()
    """What it may submit runs of, whatever its scopes."""

    def may(self, scope: Scope) -> bool:
        """Whether it has the scope, or the one that implies all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def may_submit(self, action: str) -> bool:
        """Whether it may submit runs of an action."""
        return action in self.actions or self.may(Scope.WRITE)


def is_scope(word: str) -> bool:
    """Whether it is a scope, or of an action: `actions:NAME`."""
    return word in set(Scope) or _OF_ACTION.fullmatch(word) is not None


def read_scopes(words: Iterable[str]) -> tuple[frozenset[Scope], frozenset[str]]:
    """What words allow: scopes, and the actions of `actions:NAME`. Those that mean nothing here allow nothing."""
    words = set(words)
    actions = frozenset(found[1] for found in map(_OF_ACTION.fullmatch, words) if found)
    return frozenset(Scope(word) for word in words & set(Scope)), actions


EVERYTHING = frozenset(Scope)
LOCAL = Principal("local", None, EVERYTHING)
"""Whoever calls without a credential, where that is allowed: on loopback, or with ALLOW_ANONYMOUS."""
SECRET = Principal("secret", "secret", frozenset({Scope.READ, Scope.WRITE}))
"""Whoever has the shared secret: a machine that submits its own runs, and not an administrator."""
