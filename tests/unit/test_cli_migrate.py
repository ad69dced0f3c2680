"""The ``flashsale`` command, its exit codes, and ``flashsale migrate``, on SQLite."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from flashsale.cli import COMMANDS, cli, exits
from flashsale.errors import (
    BrokerUnavailable,
    EventRefused,
    FlashsaleError,
    SettingsError,
    SystemFault,
)

NAMES = ["001_create_sales", "002_create_orders", "003_create_order_audit_trail"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``flashsale …`` on a database of the test's own; returns exit code, stdout, stderr."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/flashsale.db")

    def run_(*arguments: str) -> tuple[int, str, str]:
        code = exits.run(cli, arguments)
        return code, *capsys.readouterr()

    return run_


def failing(error: BaseException) -> click.Command:
    @click.command
    def command() -> None:
        raise error

    return command


def python(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError(["PURCHASE_QUEUE: wrong"]), 2),
        (BrokerUnavailable("RabbitMQ is away"), 3),
        (SystemFault("the database is away"), 4),
        (EventRefused("text", "no text"), 1),
        (FlashsaleError("something"), 1),
    ],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    error: FlashsaleError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits.run(failing(error), []) == code
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_every_problem_with_the_settings_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    exits.run(failing(SettingsError(["A: wrong", "B: wrong"])), [])

    assert capsys.readouterr().err == "error: A: wrong\nerror: B: wrong\n"


def test_an_interrupt_ends_with_the_shells_own_code() -> None:
    assert exits.run(failing(KeyboardInterrupt()), []) == 130


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exits.run(failing(ZeroDivisionError()), [])


def test_a_reader_that_left_is_no_traceback(tmp_path: Path) -> None:
    """As in `flashsale migrate --status | head -1`."""
    process = python("-m", "flashsale", "migrate", "--status", cwd=tmp_path)
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()

    assert process.wait(timeout=60) == 1
    assert "Traceback" not in error
    assert "BrokenPipe" not in error


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str, run: Run) -> None:
    code, output, _ = run(name, "--help")

    assert code == 0
    assert f"  flashsale {name}" in output


def test_asking_for_help_loads_no_command(tmp_path: Path) -> None:
    script = (
        "import sys; from flashsale.cli import cli, exits; code = exits.run(cli, ['--help']);"
        "sys.exit(code or 'peewee' in sys.modules or 'psycopg2' in sys.modules)"
    )
    process = python("-c", script, cwd=tmp_path)
    output, error = process.communicate(timeout=60)

    assert (process.returncode, error) == (0, "")
    assert all(f"  {name} " in output for name in COMMANDS)


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    code, output, error = run("migrat")

    assert (code, output) == (2, "")
    assert "migrat" in error


def test_migrate_says_what_it_applied_and_then_that_nothing_is_left(run: Run) -> None:
    assert run("migrate")[:2] == (0, "".join(f"applied  {name}\n" for name in NAMES))

    code, output, error = run("migrate")
    assert (code, output) == (0, "")
    assert "nothing to do: 3 migrations were applied already" in error


def test_status_and_json_are_for_programs(run: Run) -> None:
    code, output, _ = run("migrate", "--status", "--json")

    assert code == 0
    assert json.loads(output) == {"migrations": [{"name": n, "applied": False} for n in NAMES]}
    assert json.loads(run("migrate", "--json")[1]) == {"applied": NAMES}
    assert run("migrate", "--status")[1] == "".join(f"applied  {name}\n" for name in NAMES)


def test_fake_says_that_it_only_recorded(run: Run) -> None:
    assert run("migrate", "--fake")[1] == "".join(f"recorded  {name}\n" for name in NAMES)


def test_down_undoes_and_says_so(run: Run) -> None:
    run("migrate")

    code, output, _ = run("migrate", "--down", NAMES[1], "--yes")

    assert (code, output) == (0, f"rolled back  {NAMES[2]}\nrolled back  {NAMES[1]}\n")


def test_down_asks_first_and_takes_silence_for_no(tmp_path: Path) -> None:
    for arguments, code in (([], 0), (["--down", NAMES[0]], 130)):
        process = python("-m", "flashsale", "migrate", *arguments, cwd=tmp_path)
        _, error = process.communicate(timeout=60)
        assert process.returncode == code
    assert "--yes" in error

    process = python("-m", "flashsale", "migrate", "--status", cwd=tmp_path)
    assert "missing" not in process.communicate(timeout=60)[0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--down", "004", "--yes"], 1, "error: there is no migration '004'"),
        (["--down", NAMES[0], "--yes"], 1, "error: 001_create_sales is not applied"),
        (["--status", "--fake"], 2, "exclude each other"),
        (["--database", "mysql://u:secret@h/d"], 2, "must start with postgresql://"),
        (["--database", "sqlite:////nowhere/at/all.db"], 4, "error: SQLite cannot use its file"),
    ],
)
def test_what_cannot_be_done_is_told_with_its_exit_code(
    arguments: list[str], code: int, message: str, run: Run
) -> None:
    actual, output, error = run("migrate", *arguments)

    assert (actual, output) == (code, "")
    assert message in error
    assert "secret" not in error


def test_wrong_settings_are_told_without_their_secrets(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:secret@host/")

    code, _, error = run("migrate")

    assert code == 2
    assert "error: DATABASE_URL: names no database" in error
    assert "secret" not in error


def test_three_at_once_in_any_folder_all_succeed(tmp_path: Path) -> None:
    """The migrations are found from wherever the command runs, and no folder is made there."""
    processes = [python("-m", "flashsale", "migrate", cwd=tmp_path) for _ in range(3)]
    results = [(*process.communicate(timeout=60), process.returncode) for process in processes]

    assert [code for _, _, code in results] == [0, 0, 0], results
    assert sorted(output.split()[1::2] for output, _, _ in results) == [[], [], NAMES]
    assert {path.name.partition(".db")[0] for path in tmp_path.iterdir()} == {"flashsale"}
