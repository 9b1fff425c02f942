"""What the four compose files promise, as Docker Compose reads them. No engine is needed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.compose.stack import ROOT, docker

from app.config import Settings

pytestmark = pytest.mark.usefixtures("compose")

FILES = ["docker-compose.yml", "docker-compose-dev.yml", "docker-compose-prod.yml", "docker-compose.test.yml"]
APP = ["api", "worker", "migrate"]


def read(file: str) -> dict[str, Any]:
    # Not with the .env of whoever runs this.
    return json.loads(docker("compose", "--env-file=/dev/null", "--file", file, "config", "--format=json"))


@pytest.fixture(scope="module")
def production(compose: None) -> dict[str, Any]:
    return read("docker-compose-prod.yml")


@pytest.mark.parametrize("file", FILES)
def test_api_and_worker_wait_for_the_migration_and_are_its_image(file: str) -> None:
    services = read(file)["services"]
    assert services["migrate"]["depends_on"]["db"]["condition"] == "service_healthy"
    assert services["migrate"]["restart"] == "no"
    for name in ("api", "worker"):
        assert services[name]["image"] == services["migrate"]["image"]
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert services[name]["healthcheck"]["test"]
        assert services[name]["stop_grace_period"] == "45s"


@pytest.mark.parametrize("file", FILES)
def test_only_the_api_is_published_and_only_on_loopback(file: str) -> None:
    services = read(file)["services"]
    published = [(name, port["host_ip"]) for name, service in services.items() for port in service.get("ports", [])]
    assert published == [("api", "127.0.0.1")]


def test_the_test_stack_pretends_and_forgets() -> None:
    services = read("docker-compose.test.yml")["services"]
    for name in APP:
        assert services[name]["environment"]["STUB_GENERATION"] == "true"
        assert {volume["source"] for volume in services[name].get("volumes", [])} <= {"files"}, "down -v forgets those"


@pytest.mark.parametrize("service", ["db", *APP])
def test_in_production_a_container_may_do_nothing_that_it_need_not(production: dict[str, Any], service: str) -> None:
    container = production["services"][service]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["tmpfs"] == ["/tmp:size=64m,noexec,nosuid,nodev"]
    assert container["user"] == ("postgres" if service == "db" else "10001:10001")
    assert set(container["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert container["restart"] == ("no" if service == "migrate" else "unless-stopped")
    assert all(volume["type"] == "volume" for volume in container.get("volumes", []))


def test_in_production_the_database_is_out_of_reach(production: dict[str, Any]) -> None:
    assert "ports" not in production["services"]["db"]
    assert list(production["services"]["db"]["networks"]) == ["database"]
    assert production["networks"]["database"]["internal"] is True


def test_in_production_the_database_logs_nothing_that_callers_sent(production: dict[str, Any]) -> None:
    command = production["services"]["db"]["command"]
    assert {"log_parameter_max_length=0", "log_parameter_max_length_on_error=0"} <= set(command)


@pytest.mark.parametrize("service", APP)
def test_in_production_secrets_are_files_and_strangers_are_refused(production: dict[str, Any], service: str) -> None:
    container = production["services"][service]
    environment = container["environment"]
    assert {
        "ENVIRONMENT": "production",
        "LOG_FORMAT": "json",
        "ALLOW_ANONYMOUS": "false",
    }.items() <= environment.items()
    # Nor may the default of development, or a line of .env, come before the file.
    assert environment["DATABASE_URL"] == environment["ROADMAP_AI_SECRET"] == ""
    secrets = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert {secret["source"] for secret in container["secrets"]} >= secrets | {"database_url"}


def test_every_setting_is_in_the_example_with_a_line_of_meaning() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = {line[1:].partition("=")[0].lower() for line in lines if line[:1] == "#" and line[1:2].isupper()}
    assert set(Settings.model_fields) <= named
