"""Deliveries read straight from the stream are those that pika reads, in the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec
from pika.channel import Channel

from flashsale.batching import Delivery
from flashsale.brokers import properties
from flashsale.brokers.deliveries import DeliveryScanner, Diversion, divert
from tests.support.properties import UNREADABLE, RawProperties

CHANNEL = 3
TAG = "ctag3.0123"
OTHER_TAG = "ctag3.0124"
QUEUES = {TAG: "purchase", OTHER_TAG: "purchase-2"}


class Stack:
    """pika without a socket: one channel with one consumer, fed with the bytes of a broker."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        # The connection's own constructor with a workflow that opens no socket.
        self.below = pika.SelectConnection(internal_connection_workflow=False)
        self.below._transport = SimpleNamespace()
        self.below._set_connection_state(self.below.CONNECTION_OPEN)
        impl = Channel(self.below, CHANNEL, lambda _: None)
        impl._set_state(Channel.OPEN)
        impl._consumers = dict.fromkeys(QUEUES, self._on_delivery)
        self.below._channels[CHANNEL] = impl
        self.below._deliver_frame_to_channel = self._on_frame
        # What a Diversion is given as pika's blocking channel.
        self.returns_asked: list[int] = []
        self.channel = SimpleNamespace(
            channel_number=CHANNEL,
            connection=SimpleNamespace(
                _impl=self.below, _request_channel_dispatch=self.returns_asked.append
            ),
        )

    def divert(self) -> Diversion:
        diversion = divert(self.channel, QUEUES, self.seen.extend)
        assert diversion is not None
        return diversion

    def feed(self, data: bytes, cuts: Sequence[int] = ()) -> None:
        edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
        for begin, end in pairwise(edges):
            self.below._on_data_available(data[begin:end])

    def counters(self) -> tuple[int, int, bytes]:
        below = self.below
        return below.bytes_received, below.frames_received, below._frame_buffer

    def _on_frame(self, value: Any) -> None:
        if value.channel_number == CHANNEL and not (
            isinstance(value, frame.Method) and not isinstance(value.method, spec.Basic.Deliver)
        ):
            self.below._channels[CHANNEL]._handle_content_frame(value)
        else:
            self.seen.append((value.channel_number, value.NAME, repr(value)))

    def _on_delivery(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        persistent = properties.delivery_mode == spec.PERSISTENT_DELIVERY_MODE
        queue = QUEUES[method.consumer_tag]
        self.seen.append(Delivery(method.delivery_tag, body, method.redelivered, persistent, queue))


@pytest.fixture
def stacks() -> Iterator[Callable[[], Stack]]:
    opened: list[Stack] = []

    def new() -> Stack:
        opened.append(Stack())
        return opened[-1]

    yield new
    for stack in opened:
        stack.below.ioloop.close()


def delivery(
    tag: int,
    body: bytes,
    *,
    redelivered: bool = False,
    names: tuple[str, str] = ("", "purchase"),
    properties: spec.BasicProperties | None = None,
    consumer: str = TAG,
    channel: int = CHANNEL,
    fragment: int = 1_000_000,
) -> bytes:
    method = spec.Basic.Deliver(consumer, tag, redelivered, *names)
    fragments = [body[at : at + fragment] for at in range(0, len(body), fragment)]
    frames = [
        frame.Method(channel, method),
        frame.Header(channel, len(body), properties or spec.BasicProperties()),
        *(frame.Body(channel, part) for part in fragments),
    ]
    return b"".join(one.marshal() for one in frames)


TEXTS = st.text(max_size=8)
DELIVERIES = st.builds(
    delivery,
    st.integers(1, 2**63 - 1),
    st.binary(max_size=40) | st.just(b"\x01\x00\x03\xce" * 10),
    redelivered=st.booleans(),
    names=st.tuples(TEXTS, TEXTS),
    consumer=st.sampled_from(list(QUEUES)),
    properties=st.builds(
        spec.BasicProperties,
        content_type=st.none() | TEXTS,
        content_encoding=st.none() | TEXTS,
        headers=st.none() | st.dictionaries(TEXTS, st.integers(0, 9) | TEXTS, max_size=3),
        delivery_mode=st.none() | st.integers(0, 3),
        priority=st.none() | st.just(2),
        message_id=st.none() | TEXTS,
    ),
    fragment=st.sampled_from([1_000_000, 1_000_000, 7]),
)
STRANGERS = st.one_of(
    st.builds(delivery, st.just(9), st.binary(max_size=9), channel=st.just(CHANNEL + 1)),
    st.just(frame.Heartbeat().marshal()),
    st.just(frame.Method(CHANNEL, spec.Basic.Cancel(TAG)).marshal()),
    st.just(frame.Method(CHANNEL, spec.Channel.Flow(active=True)).marshal()),
    st.just(frame.Method(0, spec.Connection.Blocked("memory")).marshal()),
)


@given(
    parts=st.lists(st.one_of(DELIVERIES, DELIVERIES, DELIVERIES, STRANGERS), max_size=12),
    cuts=st.lists(st.integers(0, 3_000), max_size=12),
    missing=st.integers(0, 60),
)
def test_whatever_the_stream_and_its_chunks_the_result_is_that_of_pika(
    parts: list[bytes], cuts: list[int], missing: int
) -> None:
    stream = b"".join(parts)
    stream = stream[: max(0, len(stream) - missing)]
    ours, theirs = Stack(), Stack()
    try:
        ours.divert()
        for stack in (ours, theirs):
            stack.feed(stream, cuts)

        assert ours.seen == theirs.seen
        assert ours.counters() == theirs.counters()
    finally:
        for stack in (ours, theirs):
            stack.below.ioloop.close()


def test_whole_deliveries_never_reach_pika_and_end_its_wait(
    stacks: Callable[[], Stack],
) -> None:
    stack = stacks()
    stack.divert()
    stack.below._deliver_frame_to_channel = pytest.fail

    stack.feed(delivery(7, b"one") + delivery(8, b"two", redelivered=True, consumer=OTHER_TAG))

    assert stack.seen == [
        Delivery(7, b"one", persistent=False, queue="purchase"),
        Delivery(8, b"two", redelivered=True, persistent=False, queue="purchase-2"),
    ]
    assert stack.returns_asked == [-CHANNEL]


def test_only_a_read_that_has_filled_its_buffer_asks_for_another(
    stacks: Callable[[], Stack],
) -> None:
    stack = stacks()
    diversion = stack.divert()
    stack.feed(delivery(7, b"one"))
    assert not diversion.may_have_more

    stack.feed(delivery(8, b"x" * 65_536))
    assert diversion.may_have_more


@pytest.mark.parametrize("body", [b"", b"whole", b"in several frames"], ids=bytes.decode)
@pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE)
def test_properties_that_python_cannot_hold_keep_no_delivery_from_arriving(
    stacks: Callable[[], Stack], unreadable: RawProperties, body: bytes
) -> None:
    """pika would end the connection, and the next one has the same message."""
    properties.install()
    stream = delivery(7, body, properties=unreadable, fragment=7)
    for cut in (0, len(stream) - 1):
        stack = stacks()
        stack.divert()

        stack.feed(stream, [cut])

        assert [(one.tag, one.body) for one in stack.seen] == [(7, body)]


@pytest.mark.parametrize("mode", [None, 1, 2])
@pytest.mark.parametrize(
    "others",
    [
        {},
        {"content_type": "application/json"},
        {"headers": {}},  # as amqplib, and so the API, sends it
        {"content_type": "a", "content_encoding": "b", "headers": {"c": [2]}, "priority": 2},
    ],
)
def test_a_delivery_is_persistent_by_its_mode_whatever_stands_before(
    stacks: Callable[[], Stack], mode: int | None, others: dict[str, Any]
) -> None:
    stack = stacks()
    stack.divert()

    stack.feed(delivery(1, b"x", properties=spec.BasicProperties(delivery_mode=mode, **others)))

    assert [one.persistent for one in stack.seen] == [mode == 2]


def test_after_its_end_everything_is_left_to_pika(stacks: Callable[[], Stack]) -> None:
    """A cancelled consumer's deliveries have to be given back, which pika does."""
    stack = stacks()
    diversion = stack.divert()
    diversion.end()
    handed_on: list[Any] = []
    stack.below._deliver_frame_to_channel = handed_on.append

    stack.feed(delivery(1, b"late"))

    assert stack.seen == []
    assert [type(one) for one in handed_on] == [frame.Method, frame.Header, frame.Body]


@pytest.mark.parametrize("at", ["method", "header", "body"])
def test_a_broken_frame_end_is_as_fatal_as_without_the_diversion(
    stacks: Callable[[], Stack], at: str
) -> None:
    stream = bytearray(delivery(1, b"body"))
    ends = [index for index, byte in enumerate(stream) if byte == spec.FRAME_END]
    stream[ends[("method", "header", "body").index(at)]] = 0
    stack = stacks()
    stack.divert()

    with pytest.raises(pika.exceptions.InvalidFrameError):
        stack.feed(bytes(stream))

    assert stack.seen == []


def test_a_consumer_tag_that_ours_begins_with_is_not_ours() -> None:
    data = delivery(1, b"body", consumer=TAG + "4")

    assert DeliveryScanner(CHANNEL, QUEUES).scan(data) == ([], 0)
    (ours,), length = DeliveryScanner(CHANNEL, {TAG + "4": "purchase"}).scan(data)
    assert (ours.body, length) == (b"body", len(data))


@pytest.mark.parametrize("missing", ["_read_frame", "_frame_buffer", "_trim_frame_buffer"])
def test_a_pika_that_works_otherwise_is_left_to_itself(
    caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    parts = {"_read_frame", "_trim_frame_buffer", "_transport", "frames_received"} - {missing}
    below = SimpleNamespace(**dict.fromkeys(parts))
    if missing != "_frame_buffer":
        below._frame_buffer = b""
    connection = SimpleNamespace(_impl=below, _request_channel_dispatch=None)
    channel = SimpleNamespace(channel_number=CHANNEL, connection=connection)

    assert divert(channel, QUEUES, pytest.fail) is None
    assert [record.message for record in caplog.records] == ["broker.deliveries_not_diverted"]
