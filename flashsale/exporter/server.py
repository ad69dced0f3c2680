"""A small HTTP server: GET of a few fixed pages, few connections, small requests, no waiting."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore
from typing import Any, NamedTuple

_MAX_CONNECTIONS = 16
_MAX_REQUEST_BYTES = 16_384
# For a whole request, and again for its answer: a client that sends a byte now and then would
# otherwise keep a connection for as long as it likes.
_PATIENCE_SECONDS = 5.0


class Page(NamedTuple):
    """What a path answers."""

    status: int
    content_type: str
    body: bytes


class PageServer(ThreadingMixIn, TCPServer):
    """Serves `pages`, which make the answer of each path, on threads of their own.

    Raises:
        OSError: the address cannot be listened on.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    # With socketserver's five, the sixth of clients that come at once would wait for a second: the
    # kernel drops its first packet, and it sends the next only then.
    request_queue_size = _MAX_CONNECTIONS

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        self.pages = pages
        self._free = BoundedSemaphore(_MAX_CONNECTIONS)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is none of our concern, and no reason for a traceback."""


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = _PATIENCE_SECONDS
    server_version = "flashsale"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def setup(self) -> None:
        super().setup()
        until = time.monotonic() + _PATIENCE_SECONDS
        whole = io.BufferedReader(_Hurried(self.connection, until))
        self.rfile = _Bounded(whole, _MAX_REQUEST_BYTES)  # type: ignore[assignment]

    def do_GET(self) -> None:
        make = self.server.pages.get(self.path.partition("?")[0])
        if make is None:
            self.send_error(404, f"there are {', '.join(self.server.pages)}")
            return
        page = make()
        # A socket's timeout is for all that one call sends, and does not begin again with a part.
        self.connection.settimeout(_PATIENCE_SECONDS)
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: a probe each second is no news."""


class _Hurried(io.RawIOBase):
    """What a socket receives until a time of ``time.monotonic()``; then TimeoutError."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection = connection
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Bounded:
    """A stream that ends after so many bytes, however many more are sent."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def readline(self, size: int) -> bytes:
        line: bytes = self._stream.readline(min(size, self._left))
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._stream.close()

    @property
    def closed(self) -> bool:
        return bool(self._stream.closed)
