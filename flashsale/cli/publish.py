"""``flashsale publish``: events from a file, from standard input, or made up, all confirmed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click

from flashsale import exit_codes
from flashsale.cli.shared import Number, progress_bar
from flashsale.client import PurchasePublisher, encode_checked, timestamp_now
from flashsale.errors import BrokerError, EventRefused, PublishUnconfirmed
from flashsale.purchases import Purchase
from flashsale.settings import Settings

Group = list[bytes]

_GROUP_SIZE = 1_000
_READ_BYTES = 262_144
# Far above any event the worker reads, so that --unchecked can send one that is too large.
_LONGEST_LINE_BYTES = 1_048_576
_REFUSALS_SHOWN = 20
# A quorum queue has a new leader within seconds.
_OTHER_NODES_SECONDS = 15.0
_OTHER_NODES_PAUSE_SECONDS = 0.5
# Made-up events carry the time, so at a limited rate they are made shortly before they leave.
_MADE_AHEAD_SECONDS = 0.05
# What the pace lost in a shorter pause than this is made up for.
_LONGEST_CATCH_UP_SECONDS = 1.0


@click.command
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@click.option("--sale", metavar="UUID", help="Make up events of this sale.")
@click.option("--count", type=click.IntRange(1), help="How many events to make up.")
@click.option(
    "--user-prefix", default="user-", show_default=True, help="Made-up shoppers: this and a number."
)
@click.option(
    "--repeat-share",
    type=Number(0, 1),
    default=0.0,
    help="Share of made-up events, 0 to 1, whose shopper has bought before. Default: none.",
)
@click.option("--rate", type=Number(0.01), help="Most events a second.")
@click.option("--unchecked", is_flag=True, help="Send the file's lines as they are.")
@click.option(
    "--queue", metavar="NAME", help="Instead of PURCHASE_QUEUE; several are separated by commas."
)
@click.option("--json", "as_json", is_flag=True, help="Write the summary to stdout as JSON.")
def publish(
    file: str | None,
    sale: str | None,
    count: int | None,
    user_prefix: str,
    repeat_share: float,
    rate: float | None,
    unchecked: bool,
    queue: str | None,
    as_json: bool,
) -> int:
    """Publish purchase events, and wait until RabbitMQ has confirmed every one of them.

    FILE holds one JSON event a line; - is standard input, which may be endless. A line that the
    worker would refuse is named and left out, and the exit code is 5. After a failure the same
    events can be published again: a second copy makes no second order. Where RABBITMQ_URL names
    several nodes, that is done by itself when one of them fails. Over several queues they are
    spread by shopper.

    \b
    Examples:
      flashsale publish --sale 0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11 --count 10000
      flashsale publish --sale 0b0e4c8a-… --count 600 --rate 10 --repeat-share 0.05
      flashsale publish events.jsonl --json
      tail -f events.jsonl | flashsale publish -
      flashsale publish hostile.jsonl --unchecked --queue purchase_test
      flashsale publish events.jsonl --queue purchase-0,purchase-1,purchase-2
    """
    refusals = Refusals()
    settings = _settings(queue)
    max_bytes = None if unchecked else settings.max_event_bytes
    if file is not None:
        if sale is not None or count is not None:
            raise click.UsageError("give either FILE or --sale and --count, not both")
        groups = lines_of(file, refusals, max_bytes=max_bytes)
    else:
        if sale is None or count is None:
            raise click.UsageError("give a FILE, or - for standard input, or --sale and --count")
        if max_bytes is None:
            raise click.UsageError("--unchecked is for the lines of a FILE")
        _check_made_up(sale, f"{user_prefix}{count}", max_bytes=max_bytes)
        size = _GROUP_SIZE if rate is None else int(rate * _MADE_AHEAD_SECONDS)
        events = made_up(sale, count, user_prefix=user_prefix, repeat_share=repeat_share)
        groups = grouped(events, min(_GROUP_SIZE, max(1, size)))

    publisher = PurchasePublisher(settings=settings, name="flashsale publish")
    started, code = time.monotonic(), exit_codes.OK
    try:
        with publisher, progress_bar("publishing", count) as show:
            publisher.ensure_topology()
            for notice in publisher.notices:
                click.echo(f"notice: {notice}", err=True)
            for group in groups if rate is None else paced(groups, rate):
                with _interrupts_deferred():
                    publish_group(publisher, group, nodes=len(settings.broker_urls))
                show(publisher.confirmed)
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    finally:
        # Also where an error passes by: what is confirmed, is.
        _report(publisher.confirmed, refusals.count, time.monotonic() - started, as_json)
    return code or (exit_codes.PARTIAL if refusals.count else exit_codes.OK)


def _settings(queues: str | None) -> Settings:
    settings = Settings.from_env()
    if queues is None:
        return settings
    given = Settings.from_env({**os.environ, "PURCHASE_QUEUE": queues})
    if set(given.purchase_queues) <= set(settings.purchase_queues):
        # Of the worker's own queues, whose dead letters go where its first one says.
        return replace(given, dead_letter_queue=settings.dead_letter_queue)
    return given


def publish_group(publisher: PurchasePublisher, group: Group, *, nodes: int) -> None:
    """Publish a group; of several nodes another one takes what the first has not confirmed.

    Raises:
        BrokerError: a single node failed, or all of several for some time.
    """
    until = time.monotonic() + (_OTHER_NODES_SECONDS if nodes > 1 else 0.0)
    while True:
        try:
            publisher.publish_bodies(group)
        except BrokerError as error:
            if time.monotonic() >= until:
                raise
            if isinstance(error, PublishUnconfirmed):
                click.echo(f"notice: {error}; that is done now", err=True)
                group = [body for at, body in enumerate(group) if not error.is_confirmed(at)]
        else:
            return
        time.sleep(_OTHER_NODES_PAUSE_SECONDS)


def made_up(sale: str, count: int, *, user_prefix: str, repeat_share: float) -> Iterator[bytes]:
    """Events of `sale`; each shopper is new but for the share that has bought before."""
    shoppers = 0
    for number in range(count):
        repeats = int((number + 1) * repeat_share) > int(number * repeat_share)
        shopper = number % shoppers if repeats and shoppers else shoppers
        shoppers += shopper == shoppers
        yield Purchase(sale, f"{user_prefix}{shopper}", timestamp_now()).encode()


def grouped(events: Iterator[bytes], size: int) -> Iterator[Group]:
    """`events` in groups of `size`; the last one may be smaller."""
    while group := list(islice(events, size)):
        yield group


def paced(
    groups: Iterable[Group],
    rate: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Group]:
    """The events of `groups`, at most `rate` a second, in groups of what is due."""
    due_at = clock()
    for group in groups:
        start = 0
        while start < len(group):
            due_at = max(due_at, clock() - _LONGEST_CATCH_UP_SECONDS)
            sleep(max(0.0, due_at - clock()))
            due = group[start : start + 1 + int(max(0.0, clock() - due_at) * rate)]
            start += len(due)
            due_at += len(due) / rate
            yield due


class Refusals:
    """Lines left out: counted, and the first of them named on stderr."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, line_number: int, why: str) -> None:
        self.count += 1
        if self.count <= _REFUSALS_SHOWN:
            click.echo(f"line {line_number}: {why}", err=True)
        elif self.count == _REFUSALS_SHOWN + 1:
            click.echo("more lines are refused, and only counted from here on", err=True)


def lines_of(file: str, refusals: Refusals, *, max_bytes: int | None) -> Iterator[Group]:
    """The events of `file`, in groups of what has arrived; what is refused goes to `refusals`."""
    if file == "-":
        yield from acceptable_lines(sys.stdin.buffer, refusals, max_bytes=max_bytes)
    else:
        with Path(file).open("rb") as stream:
            yield from acceptable_lines(stream, refusals, max_bytes=max_bytes)


def acceptable_lines(
    stream: BinaryIO, refusals: Refusals, *, max_bytes: int | None
) -> Iterator[Group]:
    """The lines of `stream` but for blank and refused ones; memory is bounded whatever comes.

    `max_bytes` is the largest event that the worker takes; None lets lines pass unread.
    """
    line_number = 0
    for lines in arriving_lines(stream):
        group = []
        for line in lines:
            line_number += 1
            if len(line) > _LONGEST_LINE_BYTES:
                refusals.add(line_number, f"longer than {_LONGEST_LINE_BYTES} bytes")
            elif line.strip():
                try:
                    if max_bytes is not None:
                        Purchase.parse(line, max_bytes=max_bytes)
                except EventRefused as refusal:
                    refusals.add(line_number, str(refusal))
                else:
                    group.append(line)
        if group:
            yield group


def arriving_lines(stream: BinaryIO) -> Iterator[list[bytes]]:
    """The lines of `stream` without their ends, as soon as they are there.

    A line beyond the longest allowed is cut one byte above it, and so can be told.
    """
    rest = b""
    while chunk := stream.read1(_READ_BYTES):  # type: ignore[attr-defined]  # not in the protocol
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[: _LONGEST_LINE_BYTES + 1]
        yield lines
    if rest:
        yield [rest]


def _check_made_up(sale: str, longest_user_id: str, *, max_bytes: int) -> None:
    try:
        encode_checked(Purchase(sale, longest_user_id, timestamp_now()), max_bytes=max_bytes)
    except EventRefused as refusal:
        raise click.UsageError(f"such events would be refused: {refusal}") from None


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Let a Ctrl-C wait for the confirms of what is under way; a second one does not wait."""
    pressed = False

    def note(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pressed:
        raise KeyboardInterrupt


def _report(published: int, refused: int, seconds: float, as_json: bool) -> None:
    rate = published / seconds if seconds > 0 else 0.0
    if as_json:
        summary = {
            "published": published,
            "refused": refused,
            "seconds": round(seconds, 3),
            "rate": round(rate, 1),
        }
        click.echo(json.dumps(summary))
    told = f"{published:,} events published and confirmed in {seconds:.1f} s ({rate:,.0f}/s)"
    click.echo(f"{told}; lines refused: {refused:,}" if refused else told, err=True)
