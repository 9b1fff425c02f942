"""The settings of every process, and what follows from them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url

from app.config.values import (
    DatabaseUrl,
    FeedUrls,
    FernetKeys,
    HostNames,
    Listed,
    MailServer,
    Proxies,
    Readers,
    ServiceAccount,
    WebUrl,
)
from app.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[3]
"""The folder that holds alembic.ini: the project, or the image's working directory."""

DEVELOPMENT_SECRET = "dev-secret"  # noqa: S105 - the documents' own example, refused in production
SHORTEST_SECRET = 32
"""Characters, where other machines can guess."""
SHORTEST_JWT_SECRET = 32
"""Bytes, as many as the hash has (RFC 7518 §3.2)."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Settings(BaseSettings):
    """The settings of every process, read from the environment, `.env` and files in `/run/secrets`.

    Seconds are seconds, and may have a fraction.
    """

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env",
        secrets_dir="/run/secrets" if Path("/run/secrets").is_dir() else None,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
    )

    environment: Literal["development", "test", "production"] = "development"
    database_url: DatabaseUrl | None = None
    """`postgresql+asyncpg://…`; not set: the embedded PostgreSQL, started when first needed."""
    data_dir: Path = ROOT / ".data"
    """Where the embedded PostgreSQL keeps its data, and what else is kept on this machine."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    allow_anonymous: bool = False
    """Serve without credentials on a bind that is not loopback."""
    allowed_hosts: HostNames = ()
    """Names that a request's `Host` may have, comma-separated and without ports; empty: any."""
    forwarded_allow_ips: Proxies = ("127.0.0.1", "::1")
    """Proxies whose `X-Forwarded-For` says from where a request comes: addresses or networks, comma-separated."""
    roadmap_ai_secret: SecretStr | None = None
    roadmap_ai_secret_previous: SecretStr | None = None
    """Also right, while clients change over to the new one."""
    jwt_secret: SecretStr | None = None
    """Tokens are signed with it (HS256)."""
    jwks_url: WebUrl | None = None
    """Tokens are signed by whoever publishes keys there (RS256, ES256)."""
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    rate_limit: str = Field(default="6000/minute", pattern=r"^([1-9]\d{0,8}/(second|minute|hour)|off)$")
    """Requests of one principal to one API process."""
    max_queued_runs: int = Field(default=10_000, ge=1)
    """Runs of one owner that may wait."""
    max_streams: int = Field(default=50, ge=1)
    """Event streams of one principal that one API process keeps open."""
    runledger_url: str | None = None
    """Where the command line finds the API; not set: at `host` and `port`."""

    worker_queues: Listed = ()
    """Comma-separated; empty: all queues."""
    worker_concurrency: int = Field(default=10, ge=1, le=1000)
    poll_seconds: float = Field(default=1, gt=0)
    heartbeat_seconds: float = Field(default=5, gt=0)
    lease_seconds: float = Field(default=30, gt=0)
    """A worker that has not been heard of for this long has lost its runs."""
    sweep_seconds: float = Field(default=10, gt=0)
    grace_seconds: float = Field(default=25, ge=0)
    """How long running runs may go on after SIGTERM."""
    db_timeout_seconds: float = Field(default=10, gt=0)
    pool_timeout_seconds: float = Field(default=2, gt=0)
    """A request that finds every connection of the API in use for this long is answered 503."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Where a worker tells its metrics to Prometheus; not set: nowhere."""
    watchdog_seconds: float = Field(default=45, gt=0)
    """A worker whose event loop is blocked for this long ends, with exit code 75."""
    crash_cap: int = Field(default=3, ge=1)
    """A run whose worker was lost this often has failed."""
    retention_days: int = Field(default=30, ge=1)
    """Ended runs older than this are deleted by `prune_ledger`."""
    audit_days: int = Field(default=365, ge=1)
    """Entries of the audit log older than this are deleted by `prune_ledger`."""
    digest_days: int = Field(default=365, ge=1)
    """Digests of the news older than this are deleted by `prune_ledger`."""

    webhook_key: FernetKeys | None = None
    """Encrypts stored secrets of webhooks: a Fernet key, or several with commas, the newest first."""
    webhook_timeout_seconds: float = Field(default=20, gt=0, le=60)
    """How long a receiver of webhooks may take to answer."""

    stub_generation: bool | None = None
    """`true`: other people's services are played by stubs; `false`: never; not set: those that have no key, but in
    production none."""

    stubs_url: str | None = Field(default=None, pattern=r"^https?://[^/]+$")
    """Where the stubs are served (`python -m app.outbound.stubs PORT`); not set: by each worker itself."""

    anthropic_api_key: SecretStr | None = None
    """Claude, who writes and classifies."""
    anthropic_model: str = "claude-sonnet-5-5"
    anthropic_per_minute: float | None = Field(default=None, gt=0)
    """How many calls a worker begins; not set: any number. So for the next two."""
    deepl_api_key: SecretStr | None = None
    """DeepL, who translates."""
    deepl_per_minute: float | None = Field(default=None, gt=0)
    gemini_api_key: SecretStr | None = None
    """Gemini, who speaks."""
    gemini_model: str = "gemini-3.8-flash-tts"
    gemini_per_minute: float | None = Field(default=None, gt=0)
    storage_provider: Literal["local", "s3", "bunny"] = "local"
    """Where files are kept; `local`: in the folder `files` of `data_dir`."""
    storage_signing_key: SecretStr | None = Field(default=None, min_length=32)
    """Signs the URLs of files in a folder; not set: a random one kept in `data_dir`, but in production none."""
    storage_endpoint_url: WebUrl | None = None
    """Of whoever speaks S3; not set: Amazon."""
    storage_bucket: str | None = None
    storage_access_key: str | None = None
    storage_secret_key: SecretStr | None = None
    storage_region: str = "us-east-1"
    bunny_zone: str | None = None
    """The storage zone."""
    bunny_api_key: SecretStr | None = None
    """The storage zone's password."""
    bunny_storage_endpoint: WebUrl = "https://storage.bunnycdn.com"
    """Of the storage zone's region."""
    bunny_cdn_base_url: WebUrl | None = None
    """The pull zone over the storage zone."""
    bunny_token_auth_key: SecretStr | None = None
    """Signs URLs of the pull zone, which must have token authentication switched on."""
    google_service_account: ServiceAccount | None = None
    """Whom spreadsheets are shared with: the JSON of its key."""
    backlog_sheet: str | None = None
    """Where the backlog is: a spreadsheet's id or URL, or the path of a CSV or XLSX file."""

    smtp_url: MailServer | None = None
    """`smtp://user:password@host:587`, or `smtps://…:465`; not set: mail is written to `outbox` in `data_dir`, but in
    production it fails."""
    mail_from: str = Field(default="runledger@localhost", pattern=r"^[^\s<>@\"]+@[A-Za-z0-9.-]+$")
    """The address that mail comes from."""

    digest_feeds: FeedUrls = ()
    """URLs of RSS or Atom feeds, comma-separated; empty: there is no news, or where stubs play other people's services,
    a stub's."""
    digest_to: Readers = ()
    """Who gets the nightly digest by mail: addresses, comma-separated; empty: nobody, it is only stored."""

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_set(cls, given: dict[str, Any]) -> dict[str, Any]:
        # Of the environment pydantic-settings knows this, of secret files it does not.
        return {name: value for name, value in given.items() if not (isinstance(value, str) and not value.strip())}

    @model_validator(mode="after")
    def _leases_outlive_heartbeats(self) -> Self:
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError("LEASE_SECONDS must be at least twice HEARTBEAT_SECONDS, the same for all workers")
        return self

    @model_validator(mode="after")
    def _production_pretends_nothing(self) -> Self:
        if self.environment == "production" and self.stub_generation:
            raise ValueError("STUB_GENERATION=true invents texts, translations and speech: not in production")
        return self

    @model_validator(mode="after")
    def _credentials_fit(self) -> Self:
        if self.roadmap_ai_secret_previous is not None and self.roadmap_ai_secret is None:
            raise ValueError("ROADMAP_AI_SECRET_PREVIOUS needs a ROADMAP_AI_SECRET to change over to")
        if self.jwt_secret is not None and self.jwks_url is not None:
            raise ValueError("set JWT_SECRET or JWKS_URL, not both: a token does not choose how it is checked")
        if self.jwt_secret is not None and len(self.jwt_secret.get_secret_value().encode()) < SHORTEST_JWT_SECRET:
            raise ValueError(f"JWT_SECRET must have {SHORTEST_JWT_SECRET} bytes or more, as HS256 demands")
        return self

    @model_validator(mode="after")
    def _storage_is_whole(self) -> Self:
        needs = {
            "local": (),
            "s3": ("storage_bucket",),
            "bunny": ("bunny_zone", "bunny_api_key", "bunny_cdn_base_url", "bunny_token_auth_key"),
        }[self.storage_provider]
        if missing := [name.upper() for name in needs if getattr(self, name) is None]:
            raise ValueError(f"STORAGE_PROVIDER={self.storage_provider} needs {', '.join(missing)}")
        return self

    @property
    def webhook_keys(self) -> list[str]:
        """The keys that secrets of webhooks are encrypted with, the newest first; none: they are not."""
        return self.webhook_key.get_secret_value().split(",") if self.webhook_key else []

    def stubs(self, *credentials: object) -> bool:
        """Whether a service is played by its stub, given what it would be called with."""
        if self.stub_generation is None:
            return self.environment != "production" and None in credentials
        return self.stub_generation

    @property
    def url(self) -> URL | None:
        """`database_url` parsed; `None` for the embedded PostgreSQL."""
        return make_url(self.database_url) if self.database_url else None

    @property
    def secret(self) -> str | None:
        """The shared secret of machine clients; in development there is a well-known one."""
        if self.roadmap_ai_secret is not None:
            return self.roadmap_ai_secret.get_secret_value()
        return None if self.environment == "production" or self.has_credential else DEVELOPMENT_SECRET

    @property
    def secrets(self) -> list[str]:
        """Every shared secret that is right: while one takes the place of another, both."""
        previous = self.roadmap_ai_secret_previous
        return [*filter(None, [self.secret, previous.get_secret_value() if previous else None])]

    @property
    def key_label(self) -> str:
        """What API keys of this environment show in their beginning, as `rl_live_…`."""
        return {"development": "dev", "test": "test", "production": "live"}[self.environment]

    @property
    def has_credential(self) -> bool:
        """Whether anything is configured by which callers can be told apart."""
        return any(given is not None for given in (self.roadmap_ai_secret, self.jwt_secret, self.jwks_url))

    @property
    def requests_allowed(self) -> tuple[int, int] | None:
        """`rate_limit` as requests and seconds."""
        if self.rate_limit == "off":
            return None
        amount, _, unit = self.rate_limit.partition("/")
        return int(amount), {"second": 1, "minute": 60, "hour": 3600}[unit]

    @property
    def open_on_loopback(self) -> bool:
        """Whether requests of this machine are served without a credential: there is none, and it is not published."""
        return not self.has_credential and self.host in LOOPBACK

    @property
    def says_where_published(self) -> bool:
        """Whether HOST was set: a container binds to all addresses, and HOST says where it can be reached."""
        return "host" in self.model_fields_set

    def check_exposure(self) -> None:
        """Refuse to serve strangers by accident.

        Raises:
            ConfigurationError: the bind is not loopback, and neither a credential nor ALLOW_ANONYMOUS is set; or there,
                or in production, the secret is easy to guess; or in production, tokens for others would be taken.
        """
        if not (self.has_credential or self.open_on_loopback or self.allow_anonymous):
            raise ConfigurationError(
                f"HOST={self.host} can be reached from other machines, and no credential is configured. "
                "Set ROADMAP_AI_SECRET, JWT_SECRET or JWKS_URL, or ALLOW_ANONYMOUS=true if everybody may submit runs."
            )
        is_exposed = self.environment == "production" or not (self.host in LOOPBACK or self.allow_anonymous)
        if is_exposed and any(len(secret) < SHORTEST_SECRET for secret in self.secrets):
            raise ConfigurationError(
                f"ROADMAP_AI_SECRET, or its PREVIOUS, has fewer than {SHORTEST_SECRET} characters, "
                "and other machines can guess. "
                "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if self.environment == "production" and self.jwks_url is not None and self.jwt_audience is None:
            raise ConfigurationError(
                "JWKS_URL without JWT_AUDIENCE takes every token of that issuer, those for other services too. "
                "Set JWT_AUDIENCE to what aud says in tokens for this API."
            )


@functools.cache
def get_settings() -> Settings:
    """The process's settings, read once.

    Raises:
        ConfigurationError: a variable is not valid; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = [
            ": ".join([*(str(part).upper() for part in fault["loc"]), fault["msg"].removeprefix("Value error, ")])
            for fault in error.errors()
        ]
        raise ConfigurationError("Invalid settings. " + "; ".join(faults)) from None
