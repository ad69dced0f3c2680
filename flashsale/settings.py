"""The settings: read once from the environment, checked as a whole, frozen, passed in.

Nothing below the entry points reads the environment. docs/settings.md lists all of it; the table
:data:`TUNABLES` is where names, units and bounds of the ``FLASHSALE_*`` ones are kept.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from flashsale.errors import SettingsError
from flashsale.redaction import without_credentials
from flashsale.secret_files import read_secret_files
from flashsale.urls import (
    DatabaseAddress,
    parse_broker_urls,
    parse_database_url,
    with_broker_password,
    with_database_password,
)

QueueType = Literal["classic", "quorum"]
LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

_PREFIX = "FLASHSALE_"
# What RabbitMQ allows is wider; this is what Dramatiq takes as a queue's name.
_QUEUE_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9._-]{0,199}")
# Each costs every process a share of its prefetch, and its start and reconnects a few questions.
_MOST_QUEUES = 64
# One is the reconciler's, for good where this process leads the search.
_FEWEST_CONNECTIONS = 2
# Dramatiq reads these endings as its own delay and dead-letter queues.
_RESERVED_ENDINGS = (".DQ", ".XQ")
# Which is to be no less than which, and what would come of it.
_NOT_LESS_THAN = (
    ("prefetch", "batch_size", "no batch could fill"),
    ("audit_queue_limit", "batch_size", "a full batch would lose audit events"),
    ("audit_queue_limit", "audit_batch_size", "no flush would come before its interval"),
    ("retry_max_seconds", "retry_min_seconds", "no backoff could keep to both"),
)


def _setting(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {"meaning": meaning, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)


def _default_state_folder() -> str:
    try:
        parent = tempfile.gettempdir()
    except FileNotFoundError:  # a read-only root without a /tmp, where another folder is to be set
        # Only named here: the folder in it has to be ours alone, or is refused when it is used.
        parent = "/tmp"  # noqa: S108  # nosec B108
    return str(Path(parent, f"flashsale-{os.getuid()}"))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set. Make one with :meth:`from_env`; tests may use the constructor.

    Times are in seconds, sizes in what the name says. Instances are immutable and safe to share.
    """

    database: DatabaseAddress = field(
        default_factory=lambda: parse_database_url("sqlite:///flashsale.db")
    )
    broker_urls: tuple[str, ...] = field(default=("amqp://guest:guest@localhost:5672",), repr=False)
    #: At least one, no two alike. The first also names the dead-letter queue, by default.
    purchase_queues: tuple[str, ...] = ("purchase",)
    #: One, for what comes from any of them.
    dead_letter_queue: str = "purchase.XQ"
    purchase_queue_type: QueueType = "classic"

    batch_size: int = _setting(1_000, "most events in one insert", low=1, high=5_000)
    batches_in_flight: int = _setting(
        2, "batches a process works on at once; the rest is collected meanwhile", low=1, high=64
    )
    prefetch: int = _setting(
        3_000, "most unacknowledged events a process holds", low=1, high=65_535
    )
    max_event_bytes: int = _setting(
        65_536, "larger messages are dead-lettered unread", low=1_024, high=16_777_216
    )
    audit_interval_seconds: float = _setting(
        1.0, "longest time an audit event waits for its flush", low=0.05, high=60
    )
    audit_batch_size: int = _setting(
        100, "this many waiting audit events are flushed at once", low=1, high=10_000
    )
    audit_queue_limit: int = _setting(
        100_000,
        "most audit events kept in memory while the database is away",
        low=1_000,
        high=10_000_000,
    )
    reconcile_interval_seconds: float = _setting(
        60.0, "time between two searches for orders without an audit event", low=1, high=3_600
    )
    retry_min_seconds: float = _setting(
        0.1, "first backoff of a batch that had bad luck", low=0.01, high=60
    )
    retry_max_seconds: float = _setting(
        10.0, "longest backoff of a batch that had bad luck", low=0.1, high=600
    )
    breaker_hold_seconds: float = _setting(
        3.0,
        "time batches are held in a database outage before they go back to RabbitMQ",
        low=0,
        high=300,
    )
    probe_max_seconds: float = _setting(
        1.0, "longest time between two probes of an unreachable database", low=0.05, high=60
    )
    statement_timeout_seconds: float = _setting(
        5.0,
        "longest a statement may run, on the server; a second more on the client",
        low=0.1,
        high=600,
    )
    shutdown_seconds: float = _setting(
        7.0,
        "time from SIGTERM until work in progress is abandoned to redelivery",
        low=0.5,
        high=600,
    )
    state_folder: str = _setting(
        _default_state_folder(),
        "where processes note how they are, and events that may have killed one",
    )
    metrics_host: str = _setting(
        "127.0.0.1", "address that metrics and probes are served on; 0.0.0.0 for all"
    )
    metrics_port: int = _setting(
        9890, "its port, for all processes of a worker; 0 serves nothing", low=0, high=65_535
    )
    replay_rate: float = _setting(
        1_000.0, "most dead letters replayed a second", low=0.01, high=1_000_000
    )
    replay_max_failed_share: float = _setting(
        0.1, "share of a stage that may fail again before a replay stops", low=0, high=1
    )
    replay_settle_seconds: float = _setting(
        1.0, "time a stage of a replay is watched once the worker has taken it", low=0, high=600
    )
    replay_limit: int = _setting(3, "most replays of one event", low=1, high=1_000)
    log_format: LogFormat = _setting(  # noqa: RUF009
        "auto", "console, json, or auto: console on a terminal", choices=get_args(LogFormat)
    )
    log_level: LogLevel = _setting(  # noqa: RUF009
        "INFO", "least severe log line", choices=get_args(LogLevel)
    )

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `env`, the process environment by default, and its secret files.

        Raises:
            SettingsError: naming every wrong variable, the rule it breaks, and its value where
                the value cannot hold a secret.
        """
        env = os.environ if env is None else env
        problems: list[str] = []
        values: dict[str, Any] = {}
        unread: set[str] = set()
        secrets = read_secret_files(env, problems)

        def take(name: str, key: str, convert: Callable[[str], Any]) -> None:
            raw = (secrets.get(name) or env.get(name, "")).strip()
            if not raw:
                return
            try:
                values[key] = convert(raw)
            except ValueError as problem:
                # A URL may have come into the wrong variable.
                problems.append(f"{name}: {without_credentials(str(problem))}")
                unread.add(key)

        def complete(server: str, key: str, with_password: Callable[[Any, str], Any]) -> None:
            password = secrets.get(f"{server}_PASSWORD")
            file = f"{server}_PASSWORD_FILE"
            if password is None:
                return
            if key not in values:
                problems.append(f"{file}: there is no good {server}_URL that it could be for")
                return
            try:
                values[key] = with_password(values[key], password)
            except ValueError as problem:
                problems.append(f"{file}: {problem}")

        take("DATABASE_URL", "database", parse_database_url)
        take("RABBITMQ_URL", "broker_urls", parse_broker_urls)
        complete("DATABASE", "database", with_database_password)
        complete("RABBITMQ", "broker_urls", with_broker_password)
        take("PURCHASE_QUEUE", "purchase_queues", _purchase_queues)
        take("DEAD_LETTER_QUEUE", "dead_letter_queue", _dead_letter_queue)
        take(
            "PURCHASE_QUEUE_TYPE",
            "purchase_queue_type",
            lambda raw: _choice(raw, get_args(QueueType)),
        )
        for name, tunable in TUNABLES.items():
            take(name, tunable.name, _converter(tunable))
        first, *_ = values.get("purchase_queues", cls.purchase_queues)
        values.setdefault("dead_letter_queue", f"{first}.XQ")

        problems += _unknown_names(env)
        settings = cls(**values)
        # Where a value could not be read there is only its default, which nobody has set.
        problems += [
            problem for fields, problem in settings._contradictions() if unread.isdisjoint(fields)
        ]
        if problems:
            raise SettingsError(problems)
        return settings

    def _contradictions(self) -> Iterator[tuple[set[str], str]]:
        """What cannot be meant, though each value may be: the fields, and the problem with them."""
        if self.dead_letter_queue in self.purchase_queues:
            problem = "DEAD_LETTER_QUEUE: must differ from PURCHASE_QUEUE"
            yield {"dead_letter_queue", "purchase_queues"}, problem
        if self.database.is_postgres and self.database.pool_size < _FEWEST_CONNECTIONS:
            problem = (
                "DATABASE_URL: connection_limit=1 leaves none for orders while the reconciler has"
                " one; give it 2 or more"
            )
            yield {"database"}, problem
        if self.prefetch < len(self.purchase_queues):
            problem = (
                f"FLASHSALE_PREFETCH: {self.prefetch} is less than one for each of the"
                f" {len(self.purchase_queues)} queues of PURCHASE_QUEUE"
            )
            yield {"prefetch", "purchase_queues"}, problem
        for name, other, effect in _NOT_LESS_THAN:
            value, least = getattr(self, name), getattr(self, other)
            if value < least:
                problem = f"{_variable(name)}: {value} is less than {_variable(other)} ({least})"
                yield {name, other}, f"{problem}, so {effect}"


def _variable(field_name: str) -> str:
    return _PREFIX + field_name.upper()


def _choice(raw: str, choices: tuple[str, ...]) -> str:
    if raw not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}, not {raw!r}")
    return raw


def _queue(raw: str) -> str:
    if not _QUEUE_NAME.fullmatch(raw):
        raise ValueError(
            f"{raw!r} is not a queue name: letters, digits, '.', '_' and '-',"
            " starting with a letter or '_'"
        )
    return raw


def _purchase_queues(raw: str) -> tuple[str, ...]:
    names = [name.strip() for name in raw.split(",")]
    if "" in names:
        raise ValueError(f"{raw!r} has an empty name among its commas")
    problems = [problem for name in dict.fromkeys(names) if (problem := _unfit(name))]
    problems += [
        f"{name!r} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    if len(names) > _MOST_QUEUES:
        problems.append(f"{len(names)} queues are more than {_MOST_QUEUES}")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(names)


def _dead_letter_queue(raw: str) -> str:
    if "," in raw:
        raise ValueError(f"{raw!r} is a list; one queue takes the dead letters of all others")
    return _queue(raw)


def _unfit(name: str) -> str | None:
    """Why it cannot be the name of a purchase queue."""
    if name.endswith(_RESERVED_ENDINGS):
        return f"{name!r} must not end in {' or '.join(_RESERVED_ENDINGS)}"
    try:
        _queue(name)
    except ValueError as problem:
        return str(problem)
    return None


def _converter(tunable: dataclasses.Field[Any]) -> Callable[[str], Any]:
    choices = tunable.metadata["choices"]
    if isinstance(tunable.default, str):
        return lambda raw: _choice(raw, choices) if choices else raw

    kind: type[int] | type[float] = int if isinstance(tunable.default, int) else float
    low, high = tunable.metadata["low"], tunable.metadata["high"]

    def convert(raw: str) -> int | float:
        try:
            number = kind(raw)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise ValueError(f"must be {wanted}, not {raw!r}") from None
        if not low <= number <= high:  # also false for NaN
            raise ValueError(f"must be from {low} to {high}, not {raw!r}")
        return number

    return convert


def _unknown_names(env: Mapping[str, str]) -> list[str]:
    # Compared without the prefix, which would make all names alike.
    known = [name.removeprefix(_PREFIX) for name in TUNABLES]
    found = []
    for name in sorted(env):
        if name.startswith(_PREFIX) and name not in TUNABLES:
            close = difflib.get_close_matches(name.removeprefix(_PREFIX), known, n=1)
            hint = f"; did you mean {_PREFIX}{close[0]}?" if close else ""
            found.append(f"{name}: there is no such setting{hint}")
    return found


#: Every ``FLASHSALE_*`` variable by name; its field holds default, meaning and bounds.
TUNABLES: Mapping[str, dataclasses.Field[Any]] = {
    _variable(setting.name): setting
    for setting in dataclasses.fields(Settings)
    if "meaning" in setting.metadata
}
