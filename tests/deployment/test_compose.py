"""docker/compose.yaml: valid, true of flashsale, and its services sell."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flashsale.secret_files import SECRET_FILES
from flashsale.settings import Settings
from tests.support.containers import DOCKERFILE, ROOT, Image, last_of

yaml = pytest.importorskip("yaml", reason="tox run -e deployment has what this needs")

PATH = ROOT / "docker" / "compose.yaml"
STACK: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OURS = {name: each for name, each in SERVICES.items() if "build" in each}
PROMETHEUS = yaml.safe_load((PATH.parent / "prometheus" / "prometheus.yml").read_text())
TARGETS = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}


def source_of(secret: str, folder: str | Path | None = None) -> Path:
    """The file that a secret is taken from, by default or with SECRETS_FOLDER set."""
    file = re.sub(
        r"\$\{SECRETS_FOLDER:-(.+?)\}", str(folder or r"\1"), STACK["secrets"][secret]["file"]
    )
    return PATH.parent / file


def mounts() -> Iterator[tuple[str, str, str]]:
    """Service, source and target of each volume."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")[:2]
            yield name, source, target


def settings_of(env: Mapping[str, str], tmp_path: Path) -> Settings:
    """What flashsale reads from `env`, with each secret file somewhere on this machine."""
    secret = tmp_path / "secret"
    secret.write_text("canary")
    return Settings.from_env(
        {name: str(secret) if name in SECRET_FILES else value for name, value in env.items()}
    )


def test_it_is_a_compose_file() -> None:
    """By the schema of the Compose Specification."""
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, PATH], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_the_stack_has_all_that_a_sale_needs() -> None:
    assert SERVICES.keys() == {
        *("postgres", "rabbitmq", "migrate", "worker", "replay", "prometheus", "grafana")
    }
    assert SERVICES["worker"]["deploy"]["replicas"] == 3
    assert [name for name, each in SERVICES.items() if "profiles" in each] == ["replay"]


@pytest.mark.parametrize("name", OURS)
def test_each_variable_of_a_service_is_one_that_flashsale_reads(
    name: str, tmp_path: Path, image: Image
) -> None:
    env = OURS[name]["environment"]
    settings = settings_of({**image.env, **env}, tmp_path)

    known = {"DATABASE_URL", "RABBITMQ_URL", *SECRET_FILES}
    assert {each for each in env if not each.startswith("FLASHSALE_")} <= known
    assert settings.database.parameters["host"] in SERVICES
    assert (
        settings.database.parameters["user"] == SERVICES["postgres"]["environment"]["POSTGRES_USER"]
    )
    assert settings.database.name == SERVICES["postgres"]["environment"]["POSTGRES_DB"]
    user = SERVICES["rabbitmq"]["environment"]["RABBITMQ_DEFAULT_USER"]
    assert settings.broker_urls == (f"amqp://{user}:canary@rabbitmq:5672",)


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_can_do_no_more_than_it_must(name: str) -> None:
    service = OURS[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["build"] == {"context": "..", "dockerfile": "docker/Dockerfile"}
    assert (PATH.parent / ".." / service["build"]["dockerfile"]).samefile(DOCKERFILE)
    assert "user" not in service, "the image has its own"
    assert f"state:{last_of('VOLUME')}" in service["volumes"]


def test_a_stop_has_more_time_than_the_worker_takes_at_most() -> None:
    """Dramatiq looks at the signal once a second, and tells its processes."""
    for service in OURS.values():
        grace = int(re.fullmatch(r"(\d+)s", service["stop_grace_period"])[1])  # type: ignore[index]
        assert grace >= Settings.shutdown_seconds + 5


def test_everything_that_is_mounted_is_there() -> None:
    for service, source, _ in mounts():
        assert source in STACK["volumes"] or (PATH.parent / source).exists(), (service, source)
    used = {source for _, source, _ in mounts()}
    assert set(STACK["volumes"]) <= used


def test_each_secret_is_a_file_and_each_is_used() -> None:
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", ())}

    assert set(STACK["secrets"]) == used
    for secret in used:
        assert source_of(secret).read_text().strip()


def test_no_password_stands_in_the_file_but_by_the_name_of_its_secret() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if name.endswith("_FILE"):
                folder, _, secret = value.rpartition("/")
                assert folder == "/run/secrets"
                assert secret in service["secrets"]
            assert "PASS" not in name or name.endswith("_FILE")
            assert not re.search(r"://[^/]*:[^/]*@", value)


def test_new_secrets_are_those_of_the_stack_and_nobody_else_s(tmp_path: Path) -> None:
    make = [ROOT / "docker" / "make-secrets.sh", tmp_path / "secrets"]
    subprocess.run(make, check=True, capture_output=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    again = subprocess.run(make, check=True, capture_output=True, text=True)

    assert made.keys() == STACK["secrets"].keys()
    assert len({*made.values()}) == len(made)
    assert all(re.fullmatch(r"[\w-]{32}\n", secret) for secret in made.values())
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    for name, content in made.items():
        file = source_of(name, tmp_path / "secrets")
        assert file.read_text() == content
        assert file.stat().st_mode & 0o777 == 0o444
    assert again.stdout == ""


def test_the_brokers_password_comes_from_its_file(tmp_path: Path) -> None:
    """Its image takes none by a file, so the shell that starts it reads it."""
    shell, option, script = SERVICES["rabbitmq"]["entrypoint"]
    secret = tmp_path / "rabbitmq_password"
    secret.write_text("p a$$ 'word\n")
    start = tmp_path / "docker-entrypoint.sh"
    start.write_text('#!/bin/sh\necho "$* $RABBITMQ_DEFAULT_PASS"\n')
    start.chmod(0o755)
    script = script.replace("$$", "$").replace("/run/secrets", str(tmp_path))
    done = subprocess.run(
        [shell, option, script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "rabbitmq-server p a$$ 'word\n"


def test_the_pools_of_all_replicas_fit_into_the_server(tmp_path: Path, image: Image) -> None:
    """postgres:17 takes 100 connections, three of them for superusers."""
    worker = SERVICES["worker"]
    settings = settings_of({**image.env, **worker["environment"]}, tmp_path)
    processes = int(image.command[image.command.index("--processes") + 1])
    most = worker["deploy"]["replicas"] * processes * settings.database.pool_size

    assert most == 72
    assert f"take {most} of the 100" in PATH.read_text(encoding="utf-8")
    page = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    assert f"{settings.database.pool_size} = {most} of 100" in page


def test_only_this_machine_reaches_a_port() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]

    assert sorted(ports) == [f"127.0.0.1:{port}:{port}" for port in (15672, 3000, 9090)]


def test_prometheus_scrapes_each_replica(tmp_path: Path, image: Image) -> None:
    (found,) = TARGETS["flashsale"]["dns_sd_configs"]
    settings = settings_of({**image.env, **SERVICES["worker"]["environment"]}, tmp_path)

    assert found["names"] == ["worker"]
    assert found["port"] == settings.metrics_port
    assert settings.metrics_host == "0.0.0.0"  # noqa: S104
    assert SERVICES["worker"]["expose"] == [str(settings.metrics_port)]
    assert "ports" not in SERVICES["worker"], "replicas cannot share a port of the machine"


def test_prometheus_scrapes_the_broker_whose_plugin_is_on() -> None:
    (target,) = TARGETS["rabbitmq"]["static_configs"][0]["targets"]
    plugins = (PATH.parent / "rabbitmq" / "enabled_plugins").read_text()

    assert target == "rabbitmq:15692"
    assert plugins == "[rabbitmq_management, rabbitmq_prometheus].\n"


def test_the_files_that_prometheus_and_grafana_name_are_mounted() -> None:
    targets = {(service, target) for service, _, target in mounts()}

    assert PROMETHEUS["rule_files"] == ["/etc/prometheus/rules.yml"]
    assert ("prometheus", "/etc/prometheus/rules.yml") in targets
    provisioning = PATH.parent / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "flashsale.yaml").read_text())[
        "providers"
    ]
    assert ("grafana", provider["options"]["path"]) in targets
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert (PATH.parent / "grafana" / "dashboards" / Path(home).name).exists()
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"


def test_what_a_service_waits_for_can_come() -> None:
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], (name, other)
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert SERVICES[other]["restart"] == "no"


def test_the_image_s_health_check_is_asked_of_workers_only() -> None:
    assert "healthcheck" not in SERVICES["worker"]
    for name in OURS.keys() - {"worker"}:
        assert SERVICES[name]["healthcheck"] == {"disable": True}


def test_what_runs_for_long_is_limited() -> None:
    for name in SERVICES.keys() - {"migrate", "replay"}:
        limits = SERVICES[name]["deploy"]["resources"]["limits"]
        assert limits.keys() >= {"cpus", "memory"}, name
