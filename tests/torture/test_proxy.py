"""The proxy must break what it is told to break, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.torture.proxy import Fault, Proxy

_SECONDS = 5.0
_SILENCE_SECONDS = 0.2


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that answers each message with ``<message>``."""

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65_536):
                connection.sendall(b"<" + data + b">")

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    with Proxy(echo_port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection that has had an answer already."""
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"<hello>"
        yield client


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), _SECONDS)


def ask(client: socket.socket, message: bytes) -> bytes:
    client.sendall(message)
    return client.recv(65_536)


def is_silent(client: socket.socket, message: bytes) -> bool:
    client.settimeout(_SILENCE_SECONDS)
    try:
        return not ask(client, message)
    except TimeoutError:
        return True
    finally:
        client.settimeout(_SECONDS)


def test_a_cut_resets_the_connection_and_lets_new_ones_pass(
    proxy: Proxy, client: socket.socket
) -> None:
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with connect(proxy) as another:
        assert ask(another, b"again") == b"<again>"


def test_a_cut_of_one_link_spares_the_others(proxy: Proxy, client: socket.socket) -> None:
    (link,) = proxy.links()
    with connect(proxy) as another:
        assert ask(another, b"hello") == b"<hello>"
        proxy.cut([link])
        assert ask(another, b"still") == b"<still>"
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.parametrize("fault", [Fault(drop_requests=True), Fault(drop_replies=True)])
def test_a_black_hole_takes_all_and_answers_nothing(
    proxy: Proxy, client: socket.socket, fault: Fault
) -> None:
    proxy.impose(fault)
    assert is_silent(client, b"anybody there?")
    with connect(proxy) as another:
        assert is_silent(another, b"anybody there?")


def test_healing_resets_what_has_lost_bytes_and_spares_the_rest(
    proxy: Proxy, client: socket.socket
) -> None:
    (torn,) = proxy.links()
    with connect(proxy) as another:
        assert ask(another, b"hello") == b"<hello>"
        proxy.impose(Fault(drop_replies=True), [torn])
        assert is_silent(client, b"lost")
        proxy.heal()
        assert ask(another, b"still") == b"<still>"
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_delay_makes_each_way_late_by_so_much(proxy: Proxy, client: socket.socket) -> None:
    proxy.impose(Fault(delay=0.1))
    begin = time.monotonic()
    assert ask(client, b"slow") == b"<slow>"
    assert time.monotonic() - begin >= 0.2


def test_a_refusal_resets_new_connections_only(proxy: Proxy, client: socket.socket) -> None:
    proxy.impose(Fault(refuse=True))
    with pytest.raises(ConnectionResetError), connect(proxy) as another:
        another.recv(1)
    assert ask(client, b"old") == b"<old>"
    proxy.heal()
    with connect(proxy) as another:
        assert ask(another, b"new") == b"<new>"


def test_only_the_reply_to_the_named_request_is_lost(proxy: Proxy, client: socket.socket) -> None:
    proxy.lose_reply(b"COMMIT", reply_end=b">")
    assert ask(client, b"INSERT") == b"<INSERT>"
    client.sendall(b"COMMIT")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert proxy.wait_for_lost_reply(_SECONDS)
    with connect(proxy) as another:
        assert ask(another, b"COMMIT") == b"<COMMIT>"


def test_a_server_that_is_down_resets_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Proxy(port) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)
