"""What the API stands on does not hold; or the API itself."""

from __future__ import annotations

from fastapi_rfc9457 import Problem
from pydantic import NonNegativeInt

from app.errors.kinds import NotNow


class DatabaseUnavailable(NotNow):
    """PostgreSQL does not answer. Look whether what you sent was stored, and send it again if not."""

    title = "The database is not available"
    status = 503


class DatabaseBehind(NotNow):
    """The database schema is not the one this code needs. Run `runledger db upgrade`."""

    title = "The database schema is behind"
    status = 503
    retry_after: NonNegativeInt = 5


class TooBusy(NotNow):
    """More is being sent than can be taken at this moment. Nothing was stored: send it again later."""

    title = "Too busy"
    status = 503


class IssuerUnavailable(NotNow):
    """The token cannot be checked: whoever publishes the keys (`JWKS_URL`) does not answer."""

    title = "The token cannot be checked now"
    status = 503
    retry_after: NonNegativeInt = 5


class StorageUnavailable(NotNow):
    """The file storage does not take the file. Nothing was stored: send it again later."""

    title = "The file storage is not available"
    status = 503


class WebhooksUnavailable(NotNow):
    """Secrets of webhooks cannot be stored safely. Whoever runs this API must set `WEBHOOK_KEY`."""

    title = "Webhooks are not available"
    status = 503
    retry_after: NonNegativeInt = 60


class InternalError(Problem):
    """A mistake of this program. Tell whoever runs it the `id`: the log has the cause under it."""

    title = "Internal error"
    status = 500
    id: str
