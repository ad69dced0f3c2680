"""``flashsale demo``, run as a person runs it, and the events it makes up."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flashsale import exit_codes
from flashsale.accounting import Published
from flashsale.cli import cli, exits
from flashsale.demonstration import Mix, made_up
from flashsale.errors import EventRefused
from flashsale.purchases import Purchase
from tests.support.waiting import wait_until

SALE = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"
MOMENT = "2026-01-01 00:00:00+00:00"
MAX_EVENT_BYTES = 2_048
BY_THE_BODY = {
    "encoding",
    "json",
    "type",
    "missing",
    "text",
    "length",
    "format",
    "duplicate_key",
    "too_large",
}

# Each run is a process of its own, so that signals, streams and exit codes are the real ones.


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    temporary = tmp_path / "temporary"
    temporary.mkdir(exist_ok=True)
    environment = os.environ | {
        "TMPDIR": str(temporary),
        # Of no concern to the demo, and never touched by it.
        "DATABASE_URL": f"sqlite:///{tmp_path}/production.db",
        "RABBITMQ_URL": "no URL at all",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "flashsale", "demo", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    with start(tmp_path, *arguments) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def rows(database: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(sql).fetchall()


def migrated(tmp_path: Path) -> tuple[Path, str]:
    """A database that belongs to somebody: the file, and its URL."""
    file = tmp_path / "given.db"
    url = f"sqlite:///{file}"
    assert exits.run(cli, ["migrate", "--database", url]) == exit_codes.OK
    return file, url


def test_every_event_is_accounted_for_and_nothing_stays_behind(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "--events", "3000")

    assert code == exit_codes.OK
    assert "unaccounted for" in out
    assert "WRONG" not in out
    assert "every one is accounted for" in err
    assert "\x1b" not in out + err  # no colours and no bar where there is no terminal
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]


def test_over_several_queues_every_event_is_accounted_for_too(tmp_path: Path) -> None:
    code, out, _ = run(tmp_path, "--events", "2000", "--queues", "3", "--json")

    assert code == exit_codes.OK
    assert json.loads(out)["accounted_for"] is True


def test_json_tells_of_every_line_what_was_expected_and_what_was_found(tmp_path: Path) -> None:
    arguments = ["--events", "2000", "--bad-share", "0.3", "--repeat-share", "0.3", "--seed", "5"]
    code, out, _ = run(tmp_path, *arguments, "--json", "--threads", "2")
    summary = json.loads(out)
    account = summary.pop("account")

    assert code == exit_codes.OK
    assert (summary["published"], summary["seed"]) == (2_000, 5)
    assert summary["accounted_for"] is True
    assert summary["seconds"] > 0
    assert summary["events_per_second"] > 0
    assert all(line["expected"] == line["found"] for line in account.values())
    letters = {name for name in account if name.startswith("dead_letters.")}
    assert letters == {f"dead_letters.{reason}" for reason in BY_THE_BODY | {"unknown_sale"}}
    counted = letters | {"orders", "duplicates"}
    assert sum(account[name]["found"] for name in counted) == 2_000
    assert 350 < account["duplicates"]["found"] < 500


def test_a_given_database_keeps_the_demos_sale_and_is_otherwise_untouched(tmp_path: Path) -> None:
    """Sales before it neither change nor count, nor do those of an earlier demo."""
    file, url = migrated(tmp_path)
    rows(file, f"INSERT INTO sales VALUES ('{SALE}', 'real', 1, '', '', '{MOMENT}', '')")
    insert = "INSERT INTO {} SELECT '{}', id, 'shopper-0', {} '" + MOMENT + "' FROM sales"
    rows(file, insert.format("orders", "an-order", "'CONFIRMED',"))
    rows(file, insert.format("order_audit_trail", "a-row", "'CONFIRMED', NULL,"))
    tables = ("sales WHERE id", "orders WHERE sale_id", "order_audit_trail WHERE sale_id")
    before = [rows(file, f"SELECT * FROM {table} = '{SALE}'") for table in tables]

    for _ in range(2):
        code, out, err = run(tmp_path, "--events", "300", "--database", url, "--json")
        assert code == exit_codes.OK

    assert before == [rows(file, f"SELECT * FROM {table} = '{SALE}'") for table in tables]
    summary = json.loads(out)
    of_the_demo = f"SELECT count(*) FROM orders WHERE sale_id = '{summary['sale_id']}'"
    assert rows(file, of_the_demo) == [(summary["account"]["orders"]["found"],)]

    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(err.splitlines()[-1])  # what it tells the user to run
    assert rows(file, of_the_demo) == [(0,)]


def test_a_new_file_is_migrated_first(tmp_path: Path) -> None:
    file = tmp_path / "new.db"

    code, *_ = run(tmp_path, "--events", "20", "--database", f"sqlite:///{file}")

    assert code == exit_codes.OK
    assert rows(file, "SELECT count(*) FROM sales") == [(1,)]


@pytest.mark.parametrize(
    ("table", "line"), [("orders", "orders"), ("order_audit_trail", "CONFIRMED audit rows")]
)
def test_a_database_that_loses_a_row_makes_it_fail(tmp_path: Path, table: str, line: str) -> None:
    """The rows are read back: what the worker was told when it wrote them counts for nothing."""
    file, url = migrated(tmp_path)
    rows(
        file,
        f"CREATE TRIGGER leak AFTER INSERT ON {table} WHEN new.user_id = 'shopper-7'"
        f" BEGIN DELETE FROM {table} WHERE id = new.id; END",
    )

    code, out, err = run(tmp_path, "--events", "100", "--database", url)

    assert code == exit_codes.FAILURE
    (counts,) = re.findall(rf"{line} +(\d+) +(\d+) +WRONG", out)
    assert int(counts[0]) - int(counts[1]) == 1
    assert f"NOT every event is accounted for: see {line}" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_accounts_for_what_was_reached(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start(tmp_path, "--events", "10000000", "--json")
    with process:
        files = tmp_path / "temporary"
        wait_until(lambda: any(files.glob("*/demo.db")), 20, "the demo opens its database")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)

    assert process.returncode == exit_codes.INTERRUPTED
    assert "stopped: " in err
    summary = json.loads(out)
    assert summary["published"] < 10_000_000
    assert summary["account"]["unaccounted_for"]["found"] == 0
    assert list(files.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--events", "0"], "--events"),
        (["--bad-share", "1.5"], "--bad-share"),
        (["--repeat-share", "-1"], "--repeat-share"),
        (["--threads", "0"], "--threads"),
        (["--database", "mysql://root:hunter2@localhost/shop"], "--database"),
        (["--seed", "one"], "--seed"),
    ],
)
def test_wrong_usage_ends_with_its_code_and_names_the_option(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits.run(cli, ["demo", *arguments]) == exit_codes.USAGE

    written = capsys.readouterr()
    assert told in written.err
    assert "hunter2" not in written.err


def test_an_unreachable_database_ends_with_its_code(tmp_path: Path) -> None:
    url = "postgresql://shop:hunter2@127.0.0.1:1/shop"

    code, out, err = run(tmp_path, "--database", url, "--json")

    assert (code, out) == (exit_codes.DATABASE, "")
    assert "hunter2" not in err


def test_made_up_events_are_refused_for_the_reason_they_are_entered_under() -> None:
    """Whichever that is; an unknown sale alone is for the database to find."""
    published = Published()
    seen = set()
    mix = Mix(events=400, bad_share=0.5, repeat_share=0.2)
    for body in made_up(mix, SALE, published, max_event_bytes=MAX_EVENT_BYTES):
        try:
            purchase = Purchase.parse(body, max_bytes=MAX_EVENT_BYTES)
        except EventRefused as refused:
            published.dead_letters[refused.reason] -= 1
            seen.add(refused.reason)
        else:
            published.dead_letters["unknown_sale"] -= purchase.sale_id != SALE

    assert set(published.dead_letters.values()) == {0}
    assert seen == BY_THE_BODY
    assert published.orders > published.duplicates > 0


def test_the_same_mix_is_the_same_events() -> None:
    def made(seed: int) -> tuple[list[int], Published]:
        published = Published()
        mix = Mix(events=300, seed=seed)
        bodies = made_up(mix, SALE, published, max_event_bytes=MAX_EVENT_BYTES)
        return [len(body) for body in bodies], published

    assert made(1) == made(1)
    assert made(1) != made(2)
