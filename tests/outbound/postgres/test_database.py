"""Connections: what is known of them before the first one is open."""

from __future__ import annotations

from app.config import Settings
from app.outbound.postgres.database import make_engine


def test_the_isolation_that_connections_are_opened_with_is_known_before_the_first_one(settings: Settings) -> None:
    # Else fifty that connect first at the same moment may let go of theirs before SQLAlchemy has asked for it.
    assert make_engine(settings).dialect.default_isolation_level == "READ COMMITTED"
