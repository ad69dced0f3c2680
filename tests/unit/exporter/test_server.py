"""The exporter's server: a few pages, and nothing that a client can do to it."""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from flashsale.exporter import server
from flashsale.exporter.server import Page, PageServer, _Bounded
from tests.support.waiting import wait_until


@pytest.fixture
def port() -> Iterator[int]:
    pages = {"/livez": lambda: Page(503, "text/plain", b"no\n")}
    with PageServer("127.0.0.1", 0, pages) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving.server_address[1]
        serving.shutdown()
        thread.join()


def ask(port: int, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def exchange(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        answer = b""
        with suppress(ConnectionResetError, BrokenPipeError):  # it was sent more than it read
            connection.sendall(request)
            while part := connection.recv(4_096):
                answer += part
        return answer


def test_a_page_is_served_with_its_status(port: int) -> None:
    assert ask(port, "GET", "/livez") == (503, b"no\n")
    assert ask(port, "GET", "/livez?verbose=1") == (503, b"no\n")


@pytest.mark.parametrize("path", ["/", "/config", "/livez/", "/../etc/passwd"])
def test_there_is_no_other_page(port: int, path: str) -> None:
    assert ask(port, "GET", path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_but_a_get_is_done(port: int, method: str) -> None:
    assert ask(port, method, "/livez")[0] == 501


def test_of_a_request_without_end_no_more_than_the_limit_is_read() -> None:
    stream = _Bounded(io.BytesIO(b"X-Header: y\r\n" * 100), 1_000)

    assert sum(map(len, iter(partial(stream.readline, 65_537), b""))) == 1_000


@pytest.mark.parametrize("endless", [b"GET /" + b"x" * 100_000, b"GET / HTTP/1.0\r\n" * 10_000])
def test_a_client_that_sends_too_much_harms_nobody(port: int, endless: bytes) -> None:
    exchange(port, endless)

    assert ask(port, "GET", "/livez")[0] == 503


def test_one_client_too_many_is_turned_away_and_served_when_another_has_left(port: int) -> None:
    address = ("127.0.0.1", port)
    idle = [socket.create_connection(address, 5) for _ in range(server._MAX_CONNECTIONS)]
    try:
        assert exchange(port, b"GET /livez HTTP/1.0\r\n\r\n") == b""
        idle.pop().close()
        wait_until(lambda: exchange(port, b"GET /livez HTTP/1.0\r\n\r\n"), 5, "the next is served")
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize("beginning", [b"G", b"GET /livez HTTP/1.0\r\nX: "])
def test_a_client_that_dribbles_keeps_its_place_no_longer_than_one_that_is_silent(
    port: int, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    """Each byte came in time, and the request never would."""
    monkeypatch.setattr(server, "_PATIENCE_SECONDS", 0.3)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(beginning)
        with suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() - begun < 3:
                connection.sendall(b"x")
                connection.settimeout(0.02)
                with suppress(TimeoutError):
                    if connection.recv(1) == b"":
                        break

    assert 0.2 < time.monotonic() - begun < 2


def test_a_client_that_does_not_read_keeps_its_place_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_PATIENCE_SECONDS", 0.3)
    pages = {"/large": lambda: Page(200, "text/plain", b"x" * 50_000_000)}
    with PageServer("127.0.0.1", 0, pages) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        with socket.create_connection(serving.server_address, 5) as connection:
            connection.sendall(b"GET /large HTTP/1.0\r\n\r\n")
            wait_until(lambda: serving._free._value < server._MAX_CONNECTIONS, 5, "it is served")
            wait_until(lambda: serving._free._value == server._MAX_CONNECTIONS, 5, "it is left")
        serving.shutdown()
        thread.join()


def test_it_says_nothing_of_what_it_runs_on(port: int) -> None:
    answer = exchange(port, b"GET /livez HTTP/1.0\r\n\r\n")

    assert b"Server: flashsale" in answer
    assert b"Python" not in answer
