"""The image: what docker/Dockerfile says, and what its build's own steps make of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flashsale.settings import Settings
from tests.support.containers import (
    DOCKERFILE,
    IMAGE_FOLDER,
    ROOT,
    Host,
    Image,
    final_stage,
    instructions,
    last_of,
)
from tests.support.exporter import Exporter
from tests.support.waiting import wait_until
from tests.unit.test_requirements import pins

SCRIPTS = sorted([*ROOT.glob("docker/*.sh"), *ROOT.glob("tools/*.sh")])


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: tox run -e deployment")
    return found


def run(*command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_hadolint_finds_nothing() -> None:
    done = run(tool("hadolint"), str(DOCKERFILE))

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = run(tool("shellcheck"), str(script))

    assert (done.returncode, done.stdout) == (0, "")


def test_both_stages_begin_from_one_image_that_a_digest_makes_certain() -> None:
    """The digest is empty, or a whole one that `make pin` has written."""
    arguments = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    bases = [rest.partition(" AS ")[0] for word, rest in instructions() if word == "FROM"]

    assert bases == ["${PYTHON_IMAGE}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}"] * 2
    assert re.fullmatch(r"python:3\.\d+-slim", arguments["PYTHON_IMAGE"])
    assert re.fullmatch("|sha256:[0-9a-f]{64}", arguments["PYTHON_DIGEST"])


def test_the_build_runs_the_script_that_these_tests_run() -> None:
    steps = [rest for word, rest in instructions() if word == "RUN"]

    assert sum(f"docker/install.sh {IMAGE_FOLDER}" in step for step in steps) == 1
    assert not any("pip install" in step for step in steps)


def test_the_build_s_context_is_what_the_script_needs() -> None:
    """`COPY . .` takes nothing else in, such as a secret that lies about."""
    everything, *kept = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    script = (ROOT / "docker" / "install.sh").read_text(encoding="utf-8")
    (copied,) = re.findall(r"cp -R (.+) \"", script)

    assert everything == "*"
    assert {line.removeprefix("!") for line in kept} == {
        *copied.split(),
        "docker/install.sh",
        "requirements",
        "**/__pycache__",
    }


def test_it_runs_as_a_user_that_is_a_number_and_not_root() -> None:
    """Kubernetes cannot tell whether a name is root's."""
    uid, gid = map(int, last_of("USER").split(":"))

    assert uid > 1_000
    assert gid == uid
    assert f"--owner={uid} --group={gid}" in last_of("RUN")


def test_its_commands_are_lists_without_a_shell(image: Image) -> None:
    assert image.command == ["dramatiq", "flashsale.actors", "--processes", "3"]
    assert image.health_check == ["flashsale", "health"]
    assert last_of("STOPSIGNAL") == "SIGTERM"
    assert not any(word == "ENTRYPOINT" for word, _ in final_stage())


def test_its_ports_and_folders_are_those_of_the_settings(image: Image) -> None:
    settings = Settings.from_env(image.env)

    assert last_of("EXPOSE") == str(settings.metrics_port)
    assert Path(settings.state_folder).parent == Path(last_of("VOLUME"))


def test_the_tree_holds_what_is_locked_and_no_installer(image: Image) -> None:
    (packages,) = image.tree.glob("lib/python*/site-packages")
    found = {canonicalize_name(each.name): each.version for each in distributions(path=[packages])}
    here: dict[str, list[Requirement]] = pins("worker.txt")
    locked = {
        name: next(iter(pin.specifier)).version
        for name, each in here.items()
        for pin in each
        if pin.marker is None or pin.marker.evaluate()
    }

    assert found.keys() - locked.keys() == {"flashsale"}
    assert {name: found[name] for name in locked} == locked
    assert not list(image.tree.glob("bin/pip*"))


def test_all_that_python_runs_is_compiled(image: Image) -> None:
    """A read-only tree could not keep what is compiled at each start."""
    sources = list(image.tree.rglob("flashsale/**/*.py"))

    assert sources
    for source in sources:
        assert list(source.parent.glob(f"__pycache__/{source.stem}.*.pyc")), source


def test_nothing_can_be_written_but_the_state_folder(host: Host) -> None:
    places = ["/", "/usr", "/etc", "$(dirname $PWD)", "/run/secrets", str(host.image.tree), "."]
    script = "".join(f"touch {place}/new 2>/dev/null && echo {place}; " for place in places)
    done = host.run(["sh", "-c", f"{script} touch /var/lib/flashsale/new && id -u"], {})

    assert (done.returncode, done.stdout) == (0, f"{host.image.uid}\n")


def test_a_worker_that_reaches_no_server_lives_and_is_not_ready(host: Host) -> None:
    """So an orchestrator does not restart it for what a restart does not mend."""
    exporter = Exporter()
    env = {
        "DATABASE_URL": "postgresql://app@127.0.0.1:1/flashsale",
        "RABBITMQ_URL": "amqp://app:app@127.0.0.1:1",
        **exporter.env,
    }
    with host.start(host.image.command, env) as worker:
        wait_until(lambda: exporter.get("/livez") == (200, "ok\n"), 30, "the worker lives")
        health = host.enter(worker, host.image.health_check, env)
        ready = host.enter(worker, ["flashsale", "health", "--ready"], env)

        assert (health.returncode, health.stdout) == (0, "ok\n")
        assert ready.returncode == 1
        assert exporter.get("/readyz")[0] == 503


def test_a_wrong_environment_ends_the_container_with_2(host: Host) -> None:
    done = host.run(host.image.command, {"RABBITMQ_PASSWORD_FILE": "/run/secrets/none"})

    assert done.returncode == 2
    assert "RABBITMQ_PASSWORD_FILE: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("answer", "code", "pinned"),
    [("sha256:" + "4f" * 32, 0, "sha256:" + "4f" * 32), ("no such image", 1, "")],
)
def test_pinning_writes_the_digest_that_the_registry_tells(
    tmp_path: Path, answer: str, code: int, pinned: str
) -> None:
    """A stand-in for the docker command: here, no registry is asked."""
    for name in ("docker", "tools"):
        (tmp_path / name).mkdir()
    text = re.sub("(?m)^ARG PYTHON_DIGEST=.*$", "ARG PYTHON_DIGEST=", DOCKERFILE.read_text())
    (tmp_path / "docker" / "Dockerfile").write_text(text)
    script = Path(shutil.copy(ROOT / "tools" / "pin-image.sh", tmp_path / "tools"))
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(f'#!/bin/sh\necho "$*" >>"{tmp_path}/asked"\necho "{answer}"\n')
    docker.chmod(0o755)
    env = {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
    done = run(str(script), env=env)

    assert done.returncode == code, done.stderr
    asked = (tmp_path / "asked").read_text()
    assert asked == "buildx imagetools inspect python:3.13-slim --format {{.Manifest.Digest}}\n"
    written = (tmp_path / "docker" / "Dockerfile").read_text()
    assert written == text.replace("ARG PYTHON_DIGEST=", f"ARG PYTHON_DIGEST={pinned}")


def test_make_knows_how_to_pin() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert re.search(r"^pin:.*\n\ttools/pin-image\.sh$", makefile, re.MULTILINE)
