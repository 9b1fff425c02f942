"""A database that announces nothing: whoever wants to know must look."""

from __future__ import annotations

# Every function that would announce something, Procrastinate's and ours, whatever version of them there is.
SILENCE = (
    "CREATE FUNCTION say_nothing(channel text, payload text) RETURNS void LANGUAGE sql AS 'SELECT'",
    """
    DO $$
    DECLARE
        definition text;
    BEGIN
        FOR definition IN SELECT pg_get_functiondef(oid) FROM pg_proc
                           WHERE pronamespace = 'public'::regnamespace AND prosrc LIKE '%pg_notify(%'
        LOOP
            EXECUTE replace(definition, 'pg_notify(', 'say_nothing(');
        END LOOP;
    END $$
    """,
)
