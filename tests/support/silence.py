"""A database that announces nothing: whoever wants to know must look."""

from __future__ import annotations

# Whoever calls it without naming its schema, a function or a statement, finds the one that says nothing.
SILENCE = (
    "ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO pg_notify_aloud",
    "CREATE FUNCTION pg_notify(channel text, payload text) RETURNS void LANGUAGE sql AS 'SELECT'",
)
