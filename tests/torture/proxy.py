"""A TCP proxy that fails on command: the network between a worker and its servers."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK = 65_536
_COMMAND_SECONDS = 5.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s
_LONGEST_MARKER = 256


@dataclass(frozen=True)
class Fault:
    """What is wrong with the connections under it; the default is nothing."""

    #: Seconds that each byte is late, each way.
    delay: float = 0.0
    #: What the client sends is taken, acknowledged by TCP, and never arrives.
    drop_requests: bool = False
    #: What the server sends never arrives: a black hole that accepts and does not answer.
    drop_replies: bool = False
    #: New connections are reset at once.
    refuse: bool = False


PASS = Fault()


class Link:
    """One connection through the proxy. It lives on the proxy's thread."""

    def __init__(self, fault: Fault, client: asyncio.StreamWriter, server: asyncio.StreamWriter):
        self.fault = fault
        self.ends = (client, server)
        #: Bytes are missing from the stream, so it cannot simply go on.
        self.is_torn = False
        self.is_losing_a_reply = False
        self.sent = b""
        self.received = b""

    def reset(self) -> None:
        """End the connection by RST, both ways."""
        for end in self.ends:
            _reset(end)


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes connections on to `target_port`.

    Its loop runs in a thread of its own; every method is thread-safe, and its effect has begun
    when it returns. Faults are for the `links` given, or for all, and then for new ones as well.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault = PASS
        self._loss: tuple[bytes, bytes] | None = None
        self._loss_happened = threading.Event()
        self.port = 0

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._server = self._do(self._listen)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_COMMAND_SECONDS)
        self._loop.close()

    # Commands

    def links(self) -> list[Link]:
        """The connections of this moment, in no order."""
        return self._now(lambda: list(self._links))

    def impose(self, fault: Fault, links: Collection[Link] | None = None) -> None:
        """Put connections under a fault: these, or all that are and will be."""

        def impose() -> None:
            for link in self._links if links is None else links:
                link.fault = fault
            if links is None:
                self._fault = fault

        self._now(impose)

    def heal(self) -> None:
        """Pass everything again. Connections that have lost bytes meanwhile are reset."""

        def heal() -> None:
            self._fault, self._loss = PASS, None
            for link in self._links:
                link.fault = PASS
                if link.is_torn:
                    link.reset()

        self._now(heal)

    def cut(self, links: Collection[Link] | None = None) -> int:
        """Reset connections now; returns how many."""

        def cut() -> int:
            chosen = list(self._links if links is None else links)
            for link in chosen:
                link.reset()
            return len(chosen)

        return self._now(cut)

    def cut_some(self, choice: random.Random) -> int:
        """Reset a random part of the connections, one at least where there is one."""
        links = self.links()
        return self.cut(choice.sample(links, choice.randint(min(1, len(links)), len(links))))

    def lose_reply(self, request: bytes, reply_end: bytes) -> None:
        """Lose the reply to the next request with `request` in it, once, and cut its connection.

        The reply is swallowed up to its end, which is known by `reply_end`: so the server has
        done all that was asked, and only the client does not know.
        """
        if max(len(request), len(reply_end)) > _LONGEST_MARKER:
            raise ValueError("the marker is too long")
        self._loss_happened.clear()

        def lose() -> None:
            self._loss = (request, reply_end)

        self._now(lose)

    def wait_for_lost_reply(self, seconds: float) -> bool:
        """Whether a reply was lost, waiting up to `seconds` for it."""
        return self._loss_happened.wait(seconds)

    def _now(self, action: Callable[[], T]) -> T:
        async def run() -> T:
            return action()

        return self._do(run)

    def _do(self, action: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(action(), self._loop).result(_COMMAND_SECONDS)

    # The loop's thread

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._fault.refuse:
            _reset(writer)
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            _reset(writer)
            return
        link = Link(self._fault, writer, back)
        self._links.add(link)
        ways = [
            asyncio.ensure_future(self._carry(link, reader, back, self._judge_request)),
            asyncio.ensure_future(self._carry(link, there, writer, self._judge_reply)),
        ]
        try:
            await asyncio.gather(*ways)
        except asyncio.CancelledError:
            pass  # the proxy closes; asyncio would log a cancelled connection as an error
        finally:
            for way in ways:
                way.cancel()
            self._links.discard(link)
            link.reset()

    async def _carry(
        self,
        link: Link,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        passes: Callable[[Link, bytes], bool],
    ) -> None:
        """One way of a link, up to its end. Late bytes do not hold up the reading of later ones."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivery = asyncio.ensure_future(_deliver(late, sink))
        try:
            with suppress(OSError):
                while data := await source.read(_CHUNK):
                    if passes(link, data):
                        late.put_nowait((self._loop.time() + link.fault.delay, data))
            late.put_nowait((self._loop.time() + link.fault.delay, b""))
            await delivery
        finally:
            delivery.cancel()

    def _judge_request(self, link: Link, data: bytes) -> bool:
        if link.fault.drop_requests:
            link.is_torn = True
            return False
        if self._loss is not None and not link.is_losing_a_reply:
            link.sent = link.sent[-_LONGEST_MARKER:] + data
            if self._loss[0] in link.sent:
                link.is_losing_a_reply = True
                self._loss_end, self._loss = self._loss[1], None
        return True

    def _judge_reply(self, link: Link, data: bytes) -> bool:
        if link.is_losing_a_reply:
            link.received = link.received[-_LONGEST_MARKER:] + data
            if self._loss_end in link.received:
                self._loss_happened.set()
                link.reset()
            return False
        if link.fault.drop_replies:
            link.is_torn = True
            return False
        return True


async def _deliver(late: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while True:
            due, data = await late.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                sink.write_eof()
                return
            sink.write(data)
            await sink.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
        )
    writer.transport.abort()
