"""The environment: defaults, bounds, and every problem in one error that shows no secret."""

from __future__ import annotations

import dataclasses

import pytest

from flashsale.errors import SettingsError
from flashsale.settings import TUNABLES, Settings

BOUNDED = {name: field for name, field in TUNABLES.items() if field.metadata["low"] is not None}


def problems(**env: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(env)
    return caught.value.problems


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert str(settings.database) == "sqlite:///flashsale.db"
    assert settings.broker_urls == ("amqp://guest:guest@localhost:5672",)
    assert settings.purchase_queues == ("purchase",)
    assert settings.dead_letter_queue == "purchase.XQ"
    assert settings.purchase_queue_type == "classic"
    assert (settings.audit_interval_seconds, settings.audit_batch_size) == (1.0, 100)


def test_the_process_environment_is_read_where_no_other_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PURCHASE_QUEUE", "from_the_process")
    assert Settings.from_env().purchase_queues == ("from_the_process",)


def test_the_environment_of_the_worker_it_replaces_is_understood() -> None:
    settings = Settings.from_env(
        {
            "DATABASE_URL": "postgresql://app:pw@db:5432/sale?connection_limit=30&pool_timeout=20",
            "RABBITMQ_URL": "amqp://app:pw@a:5672;amqp://app:pw@b:5672",
            "PURCHASE_QUEUE": "purchase_queue",
            "DEAD_LETTER_QUEUE": "purchase_dlq",
            "PURCHASE_QUEUE_TYPE": "quorum",
            "NODE_ENV": "production",
        }
    )
    assert settings.database.pool_size == 30
    assert len(settings.broker_urls) == 2
    assert (settings.purchase_queues[0], settings.dead_letter_queue) == (
        "purchase_queue",
        "purchase_dlq",
    )
    assert settings.purchase_queue_type == "quorum"


def test_the_dead_letter_queue_follows_the_purchase_queue() -> None:
    assert Settings.from_env({"PURCHASE_QUEUE": "sale"}).dead_letter_queue == "sale.XQ"


def test_several_purchase_queues_share_the_dead_letter_queue_of_the_first() -> None:
    settings = Settings.from_env({"PURCHASE_QUEUE": "sale , sale-2,sale-3\n"})
    assert settings.purchase_queues == ("sale", "sale-2", "sale-3")
    assert settings.dead_letter_queue == "sale.XQ"


@pytest.mark.parametrize(
    ("queues", "why"),
    [
        ("a,,b", "an empty name"),
        ("a,", "an empty name"),
        (",", "an empty name"),
        ("a,b,a", "'a' is there twice"),
        ("a,b.XQ", "'b.XQ' must not end in .DQ or .XQ"),
        ("a;b", "'a;b' is not a queue name"),
        (",".join(f"q{number}" for number in range(65)), "65 queues are more than 64"),
    ],
)
def test_a_list_of_queues_that_cannot_be_meant_is_refused(queues: str, why: str) -> None:
    (problem,) = problems(PURCHASE_QUEUE=queues)
    assert problem.startswith("PURCHASE_QUEUE: ")
    assert why in problem


def test_all_that_is_wrong_with_a_list_of_queues_is_told() -> None:
    (problem,) = problems(PURCHASE_QUEUE="1st,b,b.DQ,b")
    assert all(word in problem for word in ("'1st'", "'b.DQ'", "'b' is there twice"))


def test_dead_letters_have_one_queue_which_none_of_the_purchases_is() -> None:
    (problem,) = problems(PURCHASE_QUEUE="a,b", DEAD_LETTER_QUEUE="a.XQ,b.XQ")
    assert "one queue takes the dead letters" in problem
    (problem,) = problems(PURCHASE_QUEUE="a,b", DEAD_LETTER_QUEUE="b")
    assert problem == "DEAD_LETTER_QUEUE: must differ from PURCHASE_QUEUE"


def test_each_queue_has_its_share_of_the_prefetch() -> None:
    (problem,) = problems(PURCHASE_QUEUE="a,b,c", FLASHSALE_PREFETCH="2", FLASHSALE_BATCH_SIZE="1")
    assert problem.startswith("FLASHSALE_PREFETCH: 2 is less than one for each of the 3 queues")


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_a_blank_variable_counts_as_absent(blank: str) -> None:
    """Compose files pass on variables that are not set as empty ones."""
    names = ["DATABASE_URL", "RABBITMQ_URL", "PURCHASE_QUEUE", "DEAD_LETTER_QUEUE", *TUNABLES]
    assert Settings.from_env(dict.fromkeys(names, blank)) == Settings()


def test_space_around_a_value_is_ignored() -> None:
    assert Settings.from_env({"FLASHSALE_BATCH_SIZE": " 7 \n"}).batch_size == 7


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().batch_size = 1  # type: ignore[misc]


def test_all_problems_are_reported_together() -> None:
    found = problems(
        DATABASE_URL="mysql://db/x",
        RABBITMQ_URL="http://a",
        PURCHASE_QUEUE="1st",
        DEAD_LETTER_QUEUE="a b",
        PURCHASE_QUEUE_TYPE="stream",
        FLASHSALE_AUDIT_BATCH_SIZE="many",
        FLASHSALE_LOG_FORMAT="xml",
        FLASHSALE_BATCHSIZE="1",
        FLASHSALE_RETRY_MIN_SECONDS="20",
    )
    assert [problem.split(":")[0] for problem in found] == [
        "DATABASE_URL",
        "RABBITMQ_URL",
        "PURCHASE_QUEUE",
        "DEAD_LETTER_QUEUE",
        "PURCHASE_QUEUE_TYPE",
        "FLASHSALE_AUDIT_BATCH_SIZE",
        "FLASHSALE_LOG_FORMAT",
        "FLASHSALE_BATCHSIZE",
        "FLASHSALE_RETRY_MAX_SECONDS",
    ]


def test_the_error_s_text_is_one_line_a_problem() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"PURCHASE_QUEUE": "1st", "FLASHSALE_LOG_LEVEL": "LOUD"})
    assert str(caught.value).splitlines() == list(caught.value.problems)


@pytest.mark.parametrize(
    "env",
    [
        {"DATABASE_URL": "postgresql://app:canary@db"},
        {"DATABASE_URL": "postgresql://app:12?canary=1@db/x"},
        {"DATABASE_URL": "postgresql://app:12/x#canary@db/x"},
        {"DATABASE_URL": "postgresql://app:canary@db:port/x"},
        {"RABBITMQ_URL": "amqp://app:canary@a:port"},
        {"RABBITMQ_URL": "amqp://app:12?canary@a"},
        {"FLASHSALE_DATABASE_PASSWORD": "canary"},
    ],
)
def test_no_problem_shows_a_secret(env: dict[str, str]) -> None:
    assert "canary" not in "".join(problems(**env))


def test_no_repr_shows_a_secret() -> None:
    settings = Settings.from_env(
        {"DATABASE_URL": "postgresql://app:canary@db/x", "RABBITMQ_URL": "amqp://app:canary@a"}
    )
    assert "canary" not in repr(settings) + str(settings)


def test_an_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    """A misspelt setting must not be a setting that silently does nothing."""
    assert problems(FLASHSALE_BATCHSIZE="9") == (
        "FLASHSALE_BATCHSIZE: there is no such setting; did you mean FLASHSALE_BATCH_SIZE?",
    )


def test_an_unknown_name_like_no_other_gets_no_suggestion() -> None:
    assert problems(FLASHSALE_X="9") == ("FLASHSALE_X: there is no such setting",)


@pytest.mark.parametrize("name", BOUNDED)
def test_both_bounds_are_allowed_and_named_when_passed(name: str) -> None:
    bounds = BOUNDED[name].metadata
    for bound, beyond in ((bounds["low"], -1), (bounds["high"], 1)):
        others = {"FLASHSALE_RETRY_MIN_SECONDS": "0.01", "FLASHSALE_RETRY_MAX_SECONDS": "600"}
        others |= {"FLASHSALE_BATCH_SIZE": "1"}
        settings = Settings.from_env(others | {name: str(bound), "FLASHSALE_PREFETCH": "65535"})
        assert getattr(settings, BOUNDED[name].name) == (
            65_535 if name == "FLASHSALE_PREFETCH" else bound
        )
        assert (
            f"{name}: must be from {bounds['low']} to {bounds['high']}, not '{bound + beyond}'"
            in problems(**{name: str(bound + beyond)})
        )


@pytest.mark.parametrize("raw", ["nan", "inf", "-inf", "1e999", "ten", "1,5", "0x10"])
@pytest.mark.parametrize("name", ["FLASHSALE_BATCH_SIZE", "FLASHSALE_RETRY_MIN_SECONDS"])
def test_what_is_no_finite_number_is_refused(name: str, raw: str) -> None:
    (problem,) = problems(**{name: raw})
    assert problem.startswith(f"{name}: must be ")


def test_a_count_takes_no_fraction() -> None:
    assert problems(FLASHSALE_BATCH_SIZE="1.5") == (
        "FLASHSALE_BATCH_SIZE: must be a whole number, not '1.5'",
    )


@pytest.mark.parametrize(
    ("name", "raw", "choices"),
    [
        ("PURCHASE_QUEUE_TYPE", "Quorum", "classic, quorum"),
        ("FLASHSALE_LOG_FORMAT", "xml", "auto, console, json"),
        ("FLASHSALE_LOG_LEVEL", "info", "DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_a_choice_is_refused_with_the_choices(name: str, raw: str, choices: str) -> None:
    assert problems(**{name: raw}) == (f"{name}: must be one of {choices}, not {raw!r}",)


@pytest.mark.parametrize("queue", ["1st", "-a", "a b", "ä", "a/b", "a" * 201])
def test_what_dramatiq_takes_for_no_queue_name_is_refused(queue: str) -> None:
    (problem,) = problems(PURCHASE_QUEUE=queue)
    assert "is not a queue name" in problem


@pytest.mark.parametrize("queue", ["purchase.DQ", "purchase.XQ"])
def test_the_purchase_queue_may_not_look_like_one_of_dramatiq_s_own(queue: str) -> None:
    (problem,) = problems(PURCHASE_QUEUE=queue)
    assert "must not end in .DQ or .XQ" in problem


def test_dead_letters_may_not_go_back_into_the_purchase_queue() -> None:
    assert problems(PURCHASE_QUEUE="sale", DEAD_LETTER_QUEUE="sale") == (
        "DEAD_LETTER_QUEUE: must differ from PURCHASE_QUEUE",
    )


def test_the_pool_must_hold_more_than_the_reconcilers_connection() -> None:
    address = "postgresql://app@db/sale?connection_limit="
    (problem,) = problems(DATABASE_URL=f"{address}1")
    assert "give it 2 or more" in problem
    assert Settings.from_env({"DATABASE_URL": f"{address}2"}).database.pool_size == 2


def test_a_batch_must_fit_into_the_prefetch() -> None:
    (problem,) = problems(FLASHSALE_PREFETCH="99", FLASHSALE_BATCH_SIZE="100")
    assert problem.startswith("FLASHSALE_PREFETCH: 99 is less than FLASHSALE_BATCH_SIZE (100)")


def test_the_audit_queue_must_hold_the_events_of_a_full_batch() -> None:
    env = {"FLASHSALE_AUDIT_QUEUE_LIMIT": "1000", "FLASHSALE_PREFETCH": "5000"}
    (problem,) = problems(**env, FLASHSALE_BATCH_SIZE="1001")
    assert problem.startswith(
        "FLASHSALE_AUDIT_QUEUE_LIMIT: 1000 is less than FLASHSALE_BATCH_SIZE (1001)"
    )
    assert Settings.from_env(env | {"FLASHSALE_BATCH_SIZE": "1000"}).audit_queue_limit == 1_000


def test_the_audit_queue_must_hold_as_many_events_as_are_flushed_at_once() -> None:
    env = {"FLASHSALE_AUDIT_QUEUE_LIMIT": "1000"}
    (problem,) = problems(**env, FLASHSALE_AUDIT_BATCH_SIZE="1001")
    assert problem.startswith(
        "FLASHSALE_AUDIT_QUEUE_LIMIT: 1000 is less than FLASHSALE_AUDIT_BATCH_SIZE (1001)"
    )
    assert Settings.from_env(env | {"FLASHSALE_AUDIT_BATCH_SIZE": "1000"})


@pytest.mark.parametrize(
    ("unreadable", "other"),
    [
        ({"FLASHSALE_BATCH_SIZE": "x"}, {"FLASHSALE_PREFETCH": "100"}),
        ({"FLASHSALE_PREFETCH": "x"}, {"FLASHSALE_BATCH_SIZE": "3001"}),
        ({"FLASHSALE_PREFETCH": "0"}, {"FLASHSALE_BATCH_SIZE": "3001"}),
        ({"FLASHSALE_RETRY_MAX_SECONDS": "x"}, {"FLASHSALE_RETRY_MIN_SECONDS": "20"}),
        ({"PURCHASE_QUEUE": "1st"}, {"DEAD_LETTER_QUEUE": "purchase"}),
    ],
)
def test_a_value_that_cannot_be_read_contradicts_no_other(
    unreadable: dict[str, str], other: dict[str, str]
) -> None:
    """Its default would, but it is not what was set."""
    (name,) = unreadable
    (problem,) = problems(**unreadable, **other)
    assert problem.startswith(f"{name}: ")
