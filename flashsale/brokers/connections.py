"""Connections to RabbitMQ: from the configured URLs to pika's parameters, and their failures told.

Several nodes are tried in the order they are named. Everything that connects goes through
:func:`node_parameters`, so that time limits, TLS checks and names are the same everywhere.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pika
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.connection_workflow import (
    AMQPConnectorException,
    AMQPConnectorStackTimeout,
)
from pika.exceptions import (
    AMQPError,
    AMQPHeartbeatTimeout,
    AuthenticationError,
    ConnectionWrongStateError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from flashsale.brokers import properties
from flashsale.errors import BrokerUnavailable, SettingsError

HEARTBEAT_SECONDS = 30
BLOCKED_SECONDS = 30.0
# A node that is up answers within milliseconds; one that is down must not hold up the next.
SOCKET_SECONDS = 3.0
STACK_SECONDS = 5.0

# As RabbitMQ names them: https://www.rabbitmq.com/docs/uri-query-parameters
_TLS_FILES = ("cacertfile", "certfile", "keyfile")

_KNOWN_REASONS = (
    (AuthenticationError, "it refused user or password"),
    (ProbableAuthenticationError, "it refused user or password"),
    (ProbableAccessDeniedError, "the virtual host is missing or closed to this user"),
    (ssl.SSLCertVerificationError, "its certificate is not trusted for this host name"),
    (ssl.SSLError, "it does not speak TLS there"),
    (AMQPConnectorStackTimeout, "no answer in time"),
    (TimeoutError, "no answer in time"),
)

# pika logs each failed attempt several times, with tracebacks; all of it is in the errors raised
# from here. An application that has set the logger's level itself keeps it.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def node_parameters(urls: Sequence[str], name: str) -> list[pika.URLParameters]:
    """One set of parameters for each node, in order; `name` is what RabbitMQ lists the client as.

    What a URL's query states (``?heartbeat=10``) wins over the defaults here. ``amqps://`` always
    checks the certificate's issuer, against ``cacertfile`` or else the system's authorities, and
    its host name; ``certfile`` and ``keyfile`` are this client's own.

    Raises:
        SettingsError: naming the URL by its number and what is wrong with it, never its text.
    """
    defaults = {
        "heartbeat": HEARTBEAT_SECONDS,
        "blocked_connection_timeout": BLOCKED_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "stack_timeout": STACK_SECONDS,
        "connection_attempts": 1,
        "client_properties": {"connection_name": name},
    }
    return [_parameters(url, number, defaults) for number, url in enumerate(urls, 1)]


def open_blocking(urls: Sequence[str], name: str) -> pika.BlockingConnection:
    """Connect to the first node that answers.

    Raises:
        BrokerUnavailable: when none does; names each node as host:port with its reason.
        SettingsError: see :func:`node_parameters`.
    """
    return connect(node_parameters(urls, name))


def connect(nodes: Sequence[pika.URLParameters]) -> pika.BlockingConnection:
    """Connect to the first of `nodes` that answers; each may take :data:`STACK_SECONDS`.

    Raises:
        BrokerUnavailable: when none does; names each node as host:port with its reason.
    """
    properties.install()
    failures = []
    for parameters in nodes:
        try:
            return pika.BlockingConnection(parameters)
        except (AMQPError, AMQPConnectorException, OSError) as error:
            failures.append((parameters, error))
    raise unavailable(failures) from failures[-1][1]


@contextmanager
def answers_within(connection: pika.BlockingConnection, seconds: float) -> Iterator[None]:
    """End the connection if the block, on its own thread, still waits for it after `seconds`.

    The wait then raises an AMQPConnectionError. By itself pika waits for a node that has fallen
    silent until the heartbeat is missed twice, and without heartbeats for ever.
    """
    if not connection.is_open:
        raise ConnectionWrongStateError("the connection is closed")
    # pika runs no callback of ours while it waits for an answer, save those of the loop below it;
    # ending the connection there is what its own check of heartbeats does.
    below = connection._impl
    silence = AMQPHeartbeatTimeout(f"no answer within {seconds:g} s")
    timeout = below.ioloop.call_later(seconds, partial(below._terminate_stream, silence))
    try:
        yield
    finally:
        below.ioloop.remove_timeout(timeout)


def disconnect(connection: pika.BlockingConnection, seconds: float) -> None:
    """Close the connection, and wait `seconds` at most for the node to agree. Never raises."""
    # pika asserts on the state of connections that end while it works on them.
    with suppress(AMQPError, OSError, AssertionError), answers_within(connection, seconds):
        connection.close()


def unavailable(
    failures: Sequence[tuple[pika.URLParameters, BaseException]],
) -> BrokerUnavailable:
    """The error for nodes that could all not be reached, one failure each."""
    nodes = ", ".join(f"{address(parameters)} ({_reason(error)})" for parameters, error in failures)
    return BrokerUnavailable(
        f"RabbitMQ cannot be reached at {nodes}; check that it runs and that RABBITMQ_URL is right"
    )


def address(parameters: pika.ConnectionParameters) -> str:
    """The node as host:port, for messages."""
    return f"{parameters.host}:{parameters.port}"


class Loop(IOLoop):  # type: ignore[misc]  # pika is untyped
    """pika's loop for an asynchronous connection, driven for a limited time, or cut off.

    pika offers no way to close the socket of a node that has stopped answering.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watched: set[int] = set()

    def add_handler(self, fd: int, handler: Any, events: int) -> None:
        self._watched.add(fd)
        super().add_handler(fd, handler, events)

    def remove_handler(self, fd: int) -> None:
        self._watched.discard(fd)
        super().remove_handler(fd)

    def run(self, seconds: float) -> None:
        """Serve until a callback calls stop(), `seconds` at most; once around if 0."""
        timeout = self.call_later(max(0.0, seconds), self.stop)
        self.start()
        self.remove_timeout(timeout)

    def cut(self) -> None:
        """End the connection under way, so that pika reads its end and closes the socket."""
        for fd in self._watched:
            with socket.socket(fileno=os.dup(fd)) as same_connection, suppress(OSError):
                same_connection.shutdown(socket.SHUT_RDWR)


def _parameters(url: str, number: int, defaults: Mapping[str, Any]) -> pika.URLParameters:
    parts = urlsplit(url)
    given = parse_qs(parts.query)
    files = {key: given.pop(key)[-1] for key in _TLS_FILES if key in given}
    if parts.username is not None and parts.password is None:
        raise SettingsError([f"RABBITMQ_URL: number {number} names a user without a password"])
    try:
        query = urlencode(given, doseq=True)
        parameters = pika.URLParameters(parts._replace(query=query).geturl())
    except (ValueError, TypeError, SyntaxError, AttributeError, OSError):
        # pika's own text quotes the value, which can hold a key's password
        keys = ", ".join(sorted(given)) or "its parts"
        raise SettingsError(
            [f"RABBITMQ_URL: number {number} is not one that pika understands; check {keys}"]
        ) from None
    for key, value in defaults.items():
        if key not in given:
            setattr(parameters, key, value)
    if files:
        if parameters.ssl_options is None:
            raise SettingsError([f"RABBITMQ_URL: number {number} has TLS files without amqps://"])
        parameters.ssl_options = pika.SSLOptions(_tls_context(number, **files))
    if parameters.ssl_options is not None:
        parameters.ssl_options.context.check_hostname = True
        parameters.ssl_options.context.verify_mode = ssl.CERT_REQUIRED
    return parameters


def _tls_context(
    number: int,
    cacertfile: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
) -> ssl.SSLContext:
    reading = "cacertfile"
    try:
        context = ssl.create_default_context(cafile=cacertfile)
        if certfile or keyfile:
            reading = "certfile or keyfile"
            # Without a password here, OpenSSL would ask for that of an encrypted key and wait.
            context.load_cert_chain(certfile or "", keyfile, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = "it holds no such thing" if isinstance(error, ssl.SSLError) else "it is not readable"
        raise SettingsError([f"RABBITMQ_URL: {reading} of number {number}: {why}"]) from None
    return context


def _reason(error: BaseException) -> str:
    """Why a node could not be reached, in words that hold no credentials."""
    for cause in _nested(error):
        for kind, words in _KNOWN_REASONS:
            if isinstance(cause, kind):
                return words
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return type(error).__name__


def _nested(error: BaseException) -> Iterator[BaseException]:
    """The error and those that pika has wrapped in it, outermost first."""
    yield error
    for inner in (
        *getattr(error, "exceptions", ()),
        getattr(error, "exception", None),
        *error.args,
    ):
        if isinstance(inner, BaseException):
            yield from _nested(inner)
