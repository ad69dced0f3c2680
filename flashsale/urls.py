"""Addresses of the two servers: parsed once, checked, and never shown with their passwords."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from types import MappingProxyType
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import psycopg2
import psycopg2.extensions

DEFAULT_POOL_SIZE = 30
DEFAULT_POOL_TIMEOUT_SECONDS = 20.0

_POSTGRES_SCHEMES = ("postgresql", "postgres")
_OPTION_NAME = re.compile(r"[a-z_]{1,40}")
_OF_A_HOST = ("host", "hostaddr", "port")
_UNKNOWN_OPTION = (
    "libpq does not know one of the options; its name is not shown, it may be a secret"
)
_ESCAPE_THESE = (
    "write '/', '?', '#' and '@' in names, passwords and options as %2F, %3F, %23 and %40"
)


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

    @property
    def hosts(self) -> list[dict[str, str]]:
        """libpq's parameters of each host, in order; the hosts of a list may share one port."""
        lists = [
            [(key, value) for value in self.parameters[key].split(",")]
            for key in _OF_A_HOST
            if self.parameters.get(key)
        ]
        count = max(map(len, lists), default=1)
        return [dict(each[number % len(each)] for each in lists) for number in range(count)]

    def __str__(self) -> str:
        if not self.is_postgres:
            return f"sqlite:///{self.name}"
        user = f"{self.parameters['user']}@" if "user" in self.parameters else ""
        hosts = ",".join(
            ":".join([each.get("host", "localhost"), *filter(None, [each.get("port")])])
            for each in self.hosts
        )
        return f"postgresql://{user}{hosts}/{self.name}"


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
        if query or parts.fragment:
            raise ValueError(
                "an SQLite database takes no options; write '?' and '#' as %3F and %23"
            )
        return DatabaseAddress("sqlite", name)
    if scheme not in _POSTGRES_SCHEMES:
        raise ValueError("must start with postgresql:// or sqlite:///")
    if _cut_short(parts):
        raise ValueError(_ESCAPE_THESE)
    if "\0" in unquote(url):
        raise ValueError("holds a NUL (%00), which libpq takes for the end of a text")
    name = unquote(path.removeprefix("/"))
    if not name:
        raise ValueError("names no database: postgresql://user:password@host:5432/flashsale")

    # In a libpq URL a plus sign is a plus sign.
    options = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    pool_size = _whole(options.pop("connection_limit", str(DEFAULT_POOL_SIZE)), "connection_limit")
    pool_timeout = _whole(
        options.pop("pool_timeout", str(int(DEFAULT_POOL_TIMEOUT_SECONDS))), "pool_timeout"
    )
    schema = options.pop("schema", "")
    _refuse_unknown_options(options)
    parameters = _authority(netloc) | options
    _refuse_uneven_hosts(parameters)
    if schema:
        search_path = f"-c search_path={_option_value(_identifier(schema))}"
        parameters["options"] = f"{parameters.get('options', '')} {search_path}".strip()
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
        if problem := _broker_problem(url):
            which = f" (number {number} of {len(nodes)})" if len(nodes) > 1 else ""
            raise ValueError(problem + which)
    if not nodes:
        raise ValueError("names no node: amqp://user:password@host:5672")
    return nodes


def with_database_password(address: DatabaseAddress, password: str) -> DatabaseAddress:
    """The same address with this password.

    Raises:
        ValueError: it takes none, or has one already.
    """
    if not address.is_postgres:
        raise ValueError("DATABASE_URL names an SQLite database, which has no password")
    if "password" in address.parameters:
        raise ValueError("DATABASE_URL has a password already; leave it out there")
    parameters = {**address.parameters, "password": password}
    return replace(address, parameters=MappingProxyType(parameters))


def with_broker_password(urls: Sequence[str], password: str) -> tuple[str, ...]:
    """The same nodes, all with this password.

    Raises:
        ValueError: one of them names no user, or has a password already.
    """
    completed = []
    for parts in map(urlsplit, urls):
        if not parts.username:
            raise ValueError("RABBITMQ_URL names no user: amqp://user@host:5672")
        if parts.password:
            raise ValueError("RABBITMQ_URL has a password already; leave it out there")
        credentials, _, host = parts.netloc.rpartition("@")
        user = credentials.partition(":")[0]
        netloc = f"{user}:{quote(password, safe='')}@{host}"
        completed.append(parts._replace(netloc=netloc).geturl())
    return tuple(completed)


def exposures(database: DatabaseAddress, broker_urls: Sequence[str]) -> list[str]:
    """Which connections others on the network could read or take over, each with its mend."""
    found = []
    hosts = database.parameters.get("host", "").split(",")
    if database.parameters.get("sslmode") != "verify-full" and not all(map(_is_local, hosts)):
        found.append(
            f"the server of {database} is not verified: add sslmode=verify-full and sslrootcert to"
            " DATABASE_URL"
        )
    found += [
        f"RabbitMQ at {parts.hostname} is spoken to in plain text: use amqps:// in RABBITMQ_URL"
        for parts in map(urlsplit, broker_urls)
        if parts.scheme == "amqp" and not _is_local(parts.hostname or "")
    ]
    return found


def _broker_problem(url: str) -> str:
    with suppress(ValueError):  # a port that is no number, an unclosed bracket
        parts = urlsplit(url)
        if parts.scheme in ("amqp", "amqps") and parts.netloc:
            if _cut_short(parts):
                return _ESCAPE_THESE
            if parts.hostname and parts.port != 0:
                return ""
    return "must be amqp:// or amqps://user:password@host:5672"


def _cut_short(parts: SplitResult) -> bool:
    """Whether a bare '/', '?' or '#' in a password has ended the authority before its '@'.

    What follows then holds a part of the password, so none of it may be used or shown.
    """
    return bool(parts.fragment) or "@" in parts.path + parts.query


def _is_local(host: str) -> bool:
    """Whether what is sent to this host does not leave the machine; "" and a path are sockets."""
    if not host or host == "localhost" or host.startswith(("/", "@")):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _identifier(name: str) -> str:
    """`name` as SQL takes it literally; Prisma quotes it likewise."""
    return '"' + name.replace('"', '""') + '"'


def _option_value(value: str) -> str:
    """`value` within libpq's options, where blanks separate and backslashes escape."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def _whole(raw: str, key: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", raw) or not 1 <= int(raw) <= 10_000:
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


def _refuse_uneven_hosts(parameters: Mapping[str, str]) -> None:
    if len({parameters.get(key, "").count(",") for key in _OF_A_HOST} - {0}) > 1:
        raise ValueError("names more hosts than ports, or fewer")


def _refuse_unknown_options(options: Mapping[str, str]) -> None:
    for key in options:
        if key in ("dbname", "database"):
            raise ValueError("the database is named in the path, not in an option")
        try:
            psycopg2.extensions.make_dsn(**{key: "1"})
        except psycopg2.ProgrammingError:
            # Behind a password option, or in another shape, the key may be a password's tail.
            shown = _OPTION_NAME.fullmatch(key) and not any("password" in name for name in options)
            raise ValueError(
                f"libpq knows no option {key!r}" if shown else _UNKNOWN_OPTION
            ) from None
