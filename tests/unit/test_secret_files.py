"""Secrets from files: whole URLs or passwords alone, refused with a cause and never shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flashsale.errors import SettingsError
from flashsale.secret_files import SECRET_FILES
from flashsale.settings import Settings
from tests.unit.test_settings import problems

Secret = Callable[[str | bytes], str]

DATABASE = "postgresql://app@db/sale"
BROKER = "amqp://app@mq:5672"
ODD = "p:a/s@s w%rd#ü?"


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    """Puts a secret into a file and gives its path."""

    def write(content: str | bytes) -> str:
        path = tmp_path / f"secret-{len(list(tmp_path.iterdir()))}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


def test_a_url_comes_from_the_file_that_is_named(secret: Secret) -> None:
    settings = Settings.from_env(
        {
            "DATABASE_URL_FILE": secret("postgresql://app:pw@db/sale?connection_limit=7\n"),
            "RABBITMQ_URL_FILE": secret("amqp://app:pw@a;amqp://app:pw@b\r\n"),
        }
    )

    assert settings.database.parameters.get("password") == "pw"
    assert settings.database.pool_size == 7
    assert settings.broker_urls == ("amqp://app:pw@a", "amqp://app:pw@b")


def test_a_password_in_a_file_is_taken_as_it_is(secret: Secret) -> None:
    """It is the very file that the server itself reads; nothing is escaped as in a URL."""
    settings = Settings.from_env(
        {
            "DATABASE_URL": f"{DATABASE}?connection_limit=7",
            "DATABASE_PASSWORD_FILE": secret(f"{ODD}\n"),
            "RABBITMQ_URL": "amqps://app@[::1]:5671/v%2Fh?cacertfile=x;amqp://app:@b",
            "RABBITMQ_PASSWORD_FILE": secret(ODD),
        }
    )

    assert settings.database.parameters["password"] == ODD
    assert settings.database.parameters["user"] == "app"
    assert settings.database.pool_size == 7
    escaped = "p%3Aa%2Fs%40s%20w%25rd%23%C3%BC%3F"
    assert settings.broker_urls == (
        f"amqps://app:{escaped}@[::1]:5671/v%2Fh?cacertfile=x",
        f"amqp://app:{escaped}@b",
    )


def test_a_url_and_its_password_may_come_from_two_files(secret: Secret) -> None:
    settings = Settings.from_env(
        {"DATABASE_URL_FILE": secret(DATABASE), "DATABASE_PASSWORD_FILE": secret(" pw ")}
    )

    assert settings.database.parameters.get("password") == " pw "


def test_blank_names_of_files_count_as_absent() -> None:
    assert Settings.from_env(dict.fromkeys(SECRET_FILES, " ")) == Settings()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("one\ntwo\n", "more than one line"),
        (b"\xff\xfe", "not UTF-8"),
        ("a\0b", "more than one line of text"),
        ("a" * 70_000, "more than one line of text"),
    ],
)
@pytest.mark.parametrize("name", SECRET_FILES)
def test_a_file_that_holds_no_secret_is_refused(
    name: str, content: str | bytes, cause: str, secret: Secret
) -> None:
    assert any(
        problem.startswith(f"{name}: ") and cause in problem
        for problem in problems(**{name: secret(content)})
    )


@pytest.mark.parametrize("name", SECRET_FILES)
def test_what_is_no_readable_file_is_refused_and_not_shown(name: str, tmp_path: Path) -> None:
    """People put the secret itself where its file's path should be."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    (missing,) = problems(**{name: "amqp://app:canary@mq"})
    (folder,) = problems(**{name: str(tmp_path)})
    (first,) = problems(**{name: str(pipe)})

    assert missing == (
        f"{name}: must be the path of a file that user {os.geteuid()} may read"
        " (No such file or directory)"
    )
    assert folder == first == f"{name}: must be the path of a regular file"


@pytest.mark.parametrize("name", SECRET_FILES)
def test_a_secret_that_is_given_twice_is_refused(name: str, secret: Secret) -> None:
    plain = name.removesuffix("_FILE")

    assert f"{name}: {plain} is set as well; unset one of the two" in problems(
        **{name: secret("x"), plain: "y"}
    )


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        (
            {},
            "DATABASE_PASSWORD_FILE: there is no good DATABASE_URL that it could be for",
        ),
        (
            {"DATABASE_URL": "sqlite:///x.db"},
            "DATABASE_PASSWORD_FILE: DATABASE_URL names an SQLite database, which has no password",
        ),
        (
            {"DATABASE_URL": "postgresql://app:pw@db/sale"},
            "DATABASE_PASSWORD_FILE: DATABASE_URL has a password already; leave it out there",
        ),
        (
            {},
            "RABBITMQ_PASSWORD_FILE: there is no good RABBITMQ_URL that it could be for",
        ),
        (
            {"RABBITMQ_URL": "amqp://mq"},
            "RABBITMQ_PASSWORD_FILE: RABBITMQ_URL names no user: amqp://user@host:5672",
        ),
        (
            {"RABBITMQ_URL": f"{BROKER};amqp://app:pw@mq"},
            "RABBITMQ_PASSWORD_FILE: RABBITMQ_URL has a password already; leave it out there",
        ),
    ],
)
def test_a_password_without_a_place_for_it_is_refused(
    env: dict[str, str], problem: str, secret: Secret
) -> None:
    name = problem.partition(":")[0]

    assert problems(**env, **{name: secret("canary")}) == (problem,)


def test_a_bad_url_in_a_file_is_told_without_it(secret: Secret) -> None:
    found = problems(
        DATABASE_URL_FILE=secret("postgresql://app:12/x#canary@db/x"),
        RABBITMQ_URL_FILE=secret("http://app:canary@mq"),
    )

    assert [problem.partition(":")[0] for problem in found] == ["DATABASE_URL", "RABBITMQ_URL"]
    assert "canary" not in "".join(found)


def test_no_repr_shows_what_a_file_holds(secret: Secret) -> None:
    canary = secret("canary")
    settings = Settings.from_env(
        {
            "DATABASE_URL": DATABASE,
            "DATABASE_PASSWORD_FILE": canary,
            "RABBITMQ_URL": BROKER,
            "RABBITMQ_PASSWORD_FILE": canary,
        }
    )

    assert "canary" not in repr(settings) + str(settings.database)


def test_problems_with_files_are_told_with_all_the_others(secret: Secret) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(
            {
                "DATABASE_URL_FILE": "/no/such/file",
                "RABBITMQ_URL": "http://mq",
                "FLASHSALE_BATCH_SIZE": "many",
            }
        )

    assert len(caught.value.problems) == 3
