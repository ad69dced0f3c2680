"""What the doctor makes of this machine, and of a session, without any server."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from flashsale import exit_codes
from flashsale.cli import cli, exits
from flashsale.cli.doctor import doctor
from flashsale.doctor.database import session_findings
from flashsale.doctor.machine import examine_environment, examine_state_folder, examine_versions
from flashsale.doctor.quorum import examine_quorum
from flashsale.settings import Settings

SOUND_SESSION = {
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "TimeZone": "UTC",
    "statement_timeout": "5s",
}


def test_the_versions_installed_here_are_what_is_asked_for() -> None:
    (finding,) = examine_versions()

    assert finding.level == "ok"
    assert f"dramatiq {metadata.version('dramatiq')}" in finding.says


@pytest.mark.parametrize(("found", "is_fine"), [("1.17.1", False), ("2.10", True), ("3.0", False)])
def test_a_library_of_another_version_is_named(
    monkeypatch: pytest.MonkeyPatch, found: str, is_fine: bool
) -> None:
    version = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: found if name == "dramatiq" else version(name)
    )

    first, *_ = examine_versions()

    assert (first.level == "ok") is is_fine
    assert is_fine or first.says.startswith(f"dramatiq is {found}, not ")


def test_a_folder_that_others_may_write_to_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    (finding,) = examine_state_folder(Settings(state_folder=str(tmp_path)))

    assert finding.level == "fail"
    assert "others may write" in finding.says
    assert "FLASHSALE_STATE_FOLDER" in finding.remedy


def test_a_folder_that_can_be_made_is_fine_and_not_made(tmp_path: Path) -> None:
    (finding,) = examine_state_folder(Settings(state_folder=str(tmp_path / "a" / "b")))

    assert finding.level == "ok"
    assert not (tmp_path / "a").exists()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    (finding,) = examine_state_folder(Settings(state_folder=str(tmp_path / "file" / "state")))

    assert finding.level == "fail"


def test_defaults_and_exposed_connections_are_named() -> None:
    settings = Settings(broker_urls=("amqp://user:canary@mq.example",))

    levels = {(f.check, f.level, f.says) for f in examine_environment(settings, {})}

    assert {(check, level) for check, level, _ in levels} == {
        ("environment", "warn"),
        ("exposure", "warn"),
    }
    assert "canary" not in str(levels)


def test_a_pooler_that_drops_what_a_session_asks_for_is_named() -> None:
    (sound,) = session_findings(SOUND_SESSION)
    (finding,) = session_findings(SOUND_SESSION | {"synchronous_commit": "off"})

    assert sound.level == "ok"
    assert finding.level == "fail"
    assert "synchronous_commit is off" in finding.says


def test_wrong_settings_are_findings_too() -> None:
    environment = {"DATABASE_URL": "mysql://", "FLASHSALE_PREFETCH": "many"}

    result = CliRunner().invoke(doctor, ["--json"], env=environment, standalone_mode=False)

    assert result.return_value == exit_codes.USAGE
    assert "FLASHSALE_PREFETCH" in result.stdout
    assert "DATABASE_URL" in result.stdout


@pytest.mark.parametrize("given", ["mq.example", "guest:canary@mq.example:1", "mq.example:99999"])
def test_a_management_address_that_is_none_is_wrong_usage(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits.run(cli, ["doctor", "--management", given]) == exit_codes.USAGE
    assert "user and password are RABBITMQ_URL's" in capsys.readouterr().err


def test_the_page_lists_every_check() -> None:
    root = Path(__file__).parents[2]
    table = (root / "docs" / "status.md").read_text().split("## What `doctor` examines")[1]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    code = "".join(path.read_text() for path in (root / "flashsale" / "doctor").glob("*.py"))
    made = set(re.findall(r'(?:ok|unknown|warn|fail)\(\s*"([a-z-]+)"', code))

    assert listed == made | {"purchase-queue", "dead-letter-queue"}  # these two are in a variable


SOUND_QUORUM = {"name": "letters", "members": ["a", "b", "c"], "online": ["a", "b", "c"]}
UNLIMITED = {"delivery-limit": -1}


@pytest.mark.parametrize(
    ("queue", "policy", "version", "of_letters", "found"),
    [
        ({}, {}, (3, 10), True, None),
        ({}, UNLIMITED, (4, 1), True, None),
        ({}, {}, (4, 1), True, ("fail", "delivery-limit 20")),
        ({}, {}, (4, 1), False, ("warn", "delivery-limit 20")),
        ({}, {"delivery-limit": 5}, (3, 10), True, ("fail", "delivery-limit 5")),
        ({"arguments": {"x-delivery-limit": 9}}, {}, (3, 10), False, ("warn", "delivery-limit 9")),
        ({"online": ["a", "c"]}, UNLIMITED, (4, 1), True, ("warn", "b is away")),
        ({"members": ["a"], "online": ["a"]}, {}, (3, 10), True, ("warn", "one member")),
    ],
)
def test_what_a_quorum_queue_does_to_its_messages_is_named(
    queue: dict[str, object],
    policy: dict[str, int],
    version: tuple[int, int],
    of_letters: bool,
    found: tuple[str, str] | None,
) -> None:
    findings = list(
        examine_quorum({**SOUND_QUORUM, **queue}, policy, version, of_letters=of_letters)
    )

    assert len(findings) == (found is not None)
    for finding in findings:
        assert (finding.level, True) == (found[0], found[1] in finding.says)
