"""Settings: one frozen object, and a clear word when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import config
from app.config import Settings, get_settings
from app.errors import ConfigurationError


def settings(**given: object) -> Settings:
    return Settings(_env_file=None, **given)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgresql+asyncpg://u:p@h:1/d", "postgresql+asyncpg://u:p@h:1/d"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://u:p%40@h/d", "postgresql+asyncpg://u:p%40@h/d"),
    ],
)
def test_every_usual_url_means_the_one_driver(given: str, url: str) -> None:
    assert settings(database_url=given).database_url == url


def test_a_request_waits_two_seconds_for_a_connection_and_no_longer() -> None:
    assert settings().pool_timeout_seconds == 2


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "DATABASE_URL",
            "mysql://u:hunter2@h/d",
            r"DATABASE_URL: must start with postgresql\+asyncpg://, not mysql://",
        ),
        ("DATABASE_URL", "nonsense", "DATABASE_URL: "),
        ("PORT", "70000", "PORT: Input should be less than or equal to 65535"),
        ("WORKER_CONCURRENCY", "0", "WORKER_CONCURRENCY: Input should be greater than or equal to 1"),
        ("LEASE_SECONDS", "1", "LEASE_SECONDS must be at least twice HEARTBEAT_SECONDS"),
        ("GOOGLE_SERVICE_ACCOUNT", "hunter2", "GOOGLE_SERVICE_ACCOUNT: must be the JSON of a service account's key"),
        ("GOOGLE_SERVICE_ACCOUNT", '["hunter2"]', "GOOGLE_SERVICE_ACCOUNT: must be the JSON"),
        ("DIGEST_FEEDS", "https://a.example/rss, ftp://b.example/hunter2", "DIGEST_FEEDS: must be http or https URLs"),
        ("DIGEST_FEEDS", "https://ada:hunter2@a.example/rss", "DIGEST_FEEDS: .* without user name and password"),
        ("DIGEST_FEEDS", "https://[hunter2/", "DIGEST_FEEDS: must be http"),
        ("DIGEST_FEEDS", "https://a.example:hunter2/", "DIGEST_FEEDS: must be http"),
        ("DIGEST_TO", "ada@example.com, hunter2", "DIGEST_TO: must be up to 50 mail addresses"),
        ("DIGEST_TO", ",".join(f"ada{n}@example.com" for n in range(51)), "DIGEST_TO: must be up to 50"),
        ("FORWARDED_ALLOW_IPS", "*", "FORWARDED_ALLOW_IPS: must be addresses or networks of proxies"),
        ("FORWARDED_ALLOW_IPS", "127.0.0.1, proxy.hunter2", "FORWARDED_ALLOW_IPS: must be addresses"),
        ("ENVIRONMENT", "prod", "ENVIRONMENT: Input should be 'development', 'test' or 'production'"),
    ],
)
def test_a_wrong_setting_is_named_and_explained_without_its_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    get_settings.cache_clear()
    with pytest.raises(ConfigurationError, match=said) as refused:
        get_settings()
    get_settings.cache_clear()
    assert "hunter2" not in str(refused.value)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    assert settings().url is None


def test_an_empty_secret_file_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "roadmap_ai_secret").write_text("\n")
    given = Settings(_env_file=None, _secrets_dir=tmp_path, environment="production", host="0.0.0.0")
    assert given.secret is None
    with pytest.raises(ConfigurationError, match="Set ROADMAP_AI_SECRET"):
        given.check_exposure()


LONG_ENOUGH = "s" * 32


@pytest.mark.parametrize("where", [{"environment": "production"}, {"host": "0.0.0.0"}, {"host": "::"}])
@pytest.mark.parametrize(
    "secrets",
    [
        {"roadmap_ai_secret": "dev-secret"},
        {"roadmap_ai_secret": "s" * 31},
        {"roadmap_ai_secret": LONG_ENOUGH, "roadmap_ai_secret_previous": "dev-secret"},
    ],
)
def test_a_secret_that_is_easy_to_guess_is_refused_where_others_can(
    where: dict[str, str], secrets: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError, match="fewer than 32 characters"):
        settings(**where, **secrets).check_exposure()
    settings(**where, roadmap_ai_secret=LONG_ENOUGH).check_exposure()


@pytest.mark.parametrize("where", [{}, {"host": "0.0.0.0", "allow_anonymous": True}])
def test_where_nobody_else_calls_or_everybody_may_any_secret_does(where: dict[str, object]) -> None:
    settings(**where, roadmap_ai_secret="dev-secret").check_exposure()


def test_in_production_an_issuer_s_tokens_for_others_are_not_taken() -> None:
    given = {"environment": "production", "jwks_url": "https://issuer.example/keys"}
    with pytest.raises(ConfigurationError, match="Set JWT_AUDIENCE"):
        settings(**given).check_exposure()
    settings(**given, jwt_audience="runledger").check_exposure()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings().port = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_secret_does_not_show() -> None:
    given = settings(roadmap_ai_secret="s3cr3t")
    assert "s3cr3t" not in repr(given)
    assert given.secret == "s3cr3t"


def test_production_knows_no_well_known_secret() -> None:
    assert settings().secret == "dev-secret"
    assert settings(environment="production").secret is None


@pytest.mark.parametrize(("given", "queues"), [("", ()), ("a", ("a",)), (" a, b ,", ("a", "b"))])
def test_queues_are_separated_by_commas(given: str, queues: tuple[str, ...]) -> None:
    assert settings(worker_queues=given).worker_queues == queues


def test_lists_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_QUEUES", "a, b")
    monkeypatch.setenv("ALLOWED_HOSTS", "API.example,::1")
    assert settings().worker_queues == ("a", "b")
    assert settings().allowed_hosts == ("api.example", "::1")


def test_feeds_and_readers_are_separated_by_commas() -> None:
    given = settings(digest_feeds="https://a.example/rss?x=1 ,http://b.example/,", digest_to=" ada@example.com")
    assert given.digest_feeds == ("https://a.example/rss?x=1", "http://b.example/")
    assert given.digest_to == ("ada@example.com",)
    assert (settings().digest_feeds, settings().digest_to) == ((), ())


def test_every_setting_is_documented_and_in_the_example() -> None:
    reference = (config.ROOT / "docs/reference/settings.md").read_text()
    example = (config.ROOT / ".env.example").read_text()
    names = [name.upper() for name in Settings.model_fields]
    assert [name for name in names if f"`{name}`" not in reference] == []
    assert [name for name in names if f"{name}=" not in example] == []


def test_the_root_holds_alembic() -> None:
    assert Path(config.ROOT / "alembic.ini").is_file()
