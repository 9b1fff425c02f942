"""Texts that are found by what they mean, where pgvector is installed."""

from alembic import op

revision = "app_0013"
down_revision = "app_0012"
branch_labels = None
depends_on = None

# A function, because pgvector may come later than this revision: then an administrator calls it.
CREATE_TEXTS = """
CREATE FUNCTION runledger_create_texts_v1() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'vector') THEN
        RETURN false;
    END IF;
    CREATE EXTENSION IF NOT EXISTS vector;
    CREATE TABLE IF NOT EXISTS texts (
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_texts PRIMARY KEY,
        owner text NOT NULL,
        collection text NOT NULL,
        digest bytea NOT NULL,
        text text NOT NULL,
        source text,
        embedding vector(256) NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT uq_texts_owner UNIQUE (owner, collection, digest)
    );
    CREATE INDEX IF NOT EXISTS ix_texts_embedding ON texts USING hnsw (embedding vector_cosine_ops);
    RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'Only a superuser can CREATE EXTENSION vector here. Until one does, texts cannot be embedded.';
    RETURN false;
END $$
"""


def upgrade() -> None:
    op.execute(CREATE_TEXTS)
    op.execute("SELECT runledger_create_texts_v1()")


def downgrade() -> None:
    # The extension stays: others may use it.
    op.execute("DROP TABLE IF EXISTS texts")
    op.execute("DROP FUNCTION runledger_create_texts_v1()")
