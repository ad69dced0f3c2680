"""Addresses of the two servers: parsed once, checked, and never shown with their passwords."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg2
import psycopg2.extensions

DEFAULT_POOL_SIZE = 30
DEFAULT_POOL_TIMEOUT_SECONDS = 20.0

_POSTGRES_SCHEMES = ("postgresql", "postgres")


@dataclass(frozen=True)
class DatabaseAddress:
    """Where the database is and how large the pool of connections to it may be, per process.

    ``parameters`` are libpq's (host, port, user, password, …); empty for SQLite, whose file is
    ``name``. ``str()`` and ``repr()`` show no password.
    """

    dialect: str
    name: str
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    pool_size: int = DEFAULT_POOL_SIZE
    pool_timeout_seconds: float = DEFAULT_POOL_TIMEOUT_SECONDS

    @property
    def is_postgres(self) -> bool:
        return self.dialect == "postgresql"

    def __str__(self) -> str:
        if not self.is_postgres:
            return f"sqlite:///{self.name}"
        user = self.parameters.get("user", "")
        hosts = self.parameters.get("host", "localhost")
        port = self.parameters.get("port", "")
        return f"postgresql://{user + '@' if user else ''}{hosts}{':' + port if port else ''}/{self.name}"


def parse_database_url(url: str) -> DatabaseAddress:
    """Parse ``sqlite:///file`` or ``postgresql://user:password@host:5432/name?key=value``.

    ``connection_limit`` and ``pool_timeout`` are the pool's size and its wait in seconds; several
    hosts are separated by commas; ``schema`` sets the search path, as it does for Prisma; every
    other key goes to libpq.

    Raises:
        ValueError: with a text that holds no part of the URL that could be a secret.
    """
    try:
        parts = urlsplit(url)
        scheme, netloc, path, query = parts.scheme, parts.netloc, parts.path, parts.query
    except ValueError:
        raise ValueError("is not a URL") from None
    if scheme == "sqlite":
        name = unquote(path.removeprefix("/"))
        if netloc or not name or name == ":memory:":
            raise ValueError("an SQLite database needs a file: sqlite:///flashsale.db")
        if query:
            raise ValueError("an SQLite database takes no options")
        return DatabaseAddress("sqlite", name)
    if scheme not in _POSTGRES_SCHEMES:
        raise ValueError("must start with postgresql:// or sqlite:///")
    name = unquote(path.removeprefix("/"))
    if not name:
        raise ValueError("names no database: postgresql://user:password@host:5432/flashsale")

    options = dict(parse_qsl(query, keep_blank_values=True))
    pool_size = _whole(options.pop("connection_limit", str(DEFAULT_POOL_SIZE)), "connection_limit")
    pool_timeout = _whole(
        options.pop("pool_timeout", str(int(DEFAULT_POOL_TIMEOUT_SECONDS))), "pool_timeout"
    )
    parameters = _authority(netloc) | options
    if schema := parameters.pop("schema", ""):
        parameters["options"] = f"{parameters.get('options', '')} -c search_path={schema}".strip()
    _refuse_unknown_parameters(parameters)
    return DatabaseAddress(
        "postgresql", name, MappingProxyType(parameters), pool_size, float(pool_timeout)
    )


def parse_broker_urls(urls: str) -> tuple[str, ...]:
    """Split ``amqp://…;amqp://…`` into the nodes' URLs, in order.

    Raises:
        ValueError: where one is not an AMQP URL with a host; the text holds no credentials.
    """
    nodes = tuple(filter(None, (url.strip() for url in urls.split(";"))))
    for number, url in enumerate(nodes, 1):
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("amqp", "amqps") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is no number, an unclosed bracket
            usable = False
        if not usable:
            which = f" (number {number} of {len(nodes)})" if len(nodes) > 1 else ""
            raise ValueError(f"must be amqp:// or amqps://user:password@host:5672{which}")
    if not nodes:
        raise ValueError("names no node: amqp://user:password@host:5672")
    return nodes


def _whole(raw: str, key: str) -> int:
    if not raw.isascii() or not raw.isdigit() or not 1 <= int(raw[:9]) <= 10_000:
        raise ValueError(f"{key} must be a whole number from 1 to 10000")
    return int(raw)


def _authority(netloc: str) -> dict[str, str]:
    """User, password, hosts and ports; urlsplit itself knows nothing of several hosts."""
    credentials, _, hosts = netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    names, ports = [], []
    for host in filter(None, hosts.split(",")):
        bracketed, _, after = host.rpartition("]")
        name, _, port = after.partition(":") if bracketed else host.partition(":")
        names.append(unquote((bracketed + "]").strip("[]") if bracketed else name))
        ports.append(port or "5432")
        if not ports[-1].isdigit():
            raise ValueError("a port is not a number")
    found = {"user": unquote(user), "password": unquote(password), "host": ",".join(names)}
    if names:
        found["port"] = ",".join(ports)
    return {key: value for key, value in found.items() if value}


def _refuse_unknown_parameters(parameters: Mapping[str, str]) -> None:
    for key in parameters:
        try:
            psycopg2.extensions.make_dsn(**{key: "1"})
        except psycopg2.ProgrammingError:
            raise ValueError(f"libpq knows no option {key!r}") from None
