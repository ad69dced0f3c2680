"""The queues as RabbitMQ has them, found out over AMQP without a change to any.

A declaration of what exists changes nothing: RabbitMQ compares, and names the first difference.
Declared again with that difference taken over, it names the next, until there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pika
from pika.exceptions import ChannelClosedByBroker

from flashsale.brokers.topology import (
    dead_letter_queue_arguments,
    purchase_queue_arguments,
    refusal,
)
from flashsale.doctor.finding import Finding, fail, ok, unknown, warn
from flashsale.settings import Settings

_DIFFERENCE = re.compile(r"inequivalent arg '([\w-]+)' for queue ")
_CURRENT = re.compile(
    r"current is"
    r" (?:the value '(?P<value>[^']*)' of type '(?P<type>\w+)'|'(?P<plain>[^']*)'|(?P<none>none))"
)
_MOST_DIFFERENCES = 16
_REFUSED, _NOT_FOUND = 403, 404

# What makes a queue lose messages by itself; the same words without "x-" are a policy's.
_LOSING = {
    "expires": "RabbitMQ deletes the whole queue when it was not used for that long",
    "message-ttl": "RabbitMQ removes what waits longer",
    "max-length": "RabbitMQ removes what is more",
    "max-length-bytes": "RabbitMQ removes what is more",
}
_REFUSING = "RabbitMQ refuses what is more, which no publisher hears that asks no confirm"
_LENGTHS = ("max-length", "max-length-bytes")
_API_NAMES = {"purchase": "purchase_queue", "purchase.XQ": "purchase_dlq"}


def examine_queues(connection: pika.BlockingConnection, settings: Settings) -> Iterator[Finding]:
    """Whether all are there, and as the contract with the API wants them."""
    letters = settings.dead_letter_queue
    contract = purchase_queue_arguments(letters, settings.purchase_queue_type)
    of_letters = dead_letter_queue_arguments(settings.purchase_queue_type)
    yield from _examine(connection, "dead-letter-queue", letters, of_letters)
    for queue in settings.purchase_queues:
        yield from _examine(connection, "purchase-queue", queue, contract)


def losses(check: str, queue: str, arguments: Mapping[str, Any], source: str) -> Iterator[Finding]:
    """Of the arguments, or of a policy's definition: those by which the queue loses messages."""
    refuses = str(arguments.get("overflow")).startswith("reject-publish")
    for name, loss in _LOSING.items():
        value = arguments.get(name)
        if value is None:
            continue
        danger = _REFUSING if refuses and name in _LENGTHS else loss
        remedy = (
            "clear it with `rabbitmqctl clear_policy`, or change its definition"
            if source == "policy"
            else "an argument cannot be changed: move the messages elsewhere, delete the queue, and"
            " run `flashsale topology`"
        )
        yield fail(check, f"{queue!r} has the {source} {name}={value}: {danger}", remedy)


def _examine(
    connection: pika.BlockingConnection, check: str, queue: str, contract: Mapping[str, Any]
) -> Iterator[Finding]:
    missing = refusal(connection, lambda channel: channel.queue_declare(queue, passive=True))
    if missing is not None:
        yield _unusable(connection, check, queue, missing)
        return
    found = _differences(connection, check, queue, contract)
    if isinstance(found, Finding):
        yield found
        return
    findings = [*_structure(check, queue, found), *losses(check, queue, _own(found), "argument")]
    others = sorted(set(_own(found)) - set(_LOSING))
    findings += [_other(check, queue, name, found[f"x-{name}"]) for name in others]
    if name := _api_name(connection, queue):
        findings.append(
            warn(
                check,
                f"{queue!r} exists, and so does {name!r}, as the API calls it: what is there is"
                " left there",
                f"set {_variable(check)}={name}, unless it is somebody else's",
            )
        )
    yield from findings or [ok(check, f"{queue!r} exists, durable, with the contract's arguments")]


def _api_name(connection: pika.BlockingConnection, queue: str) -> str | None:
    """What the API calls this queue, where ours has the name by default and that one exists."""
    name = _API_NAMES.get(queue)
    if name and not refusal(connection, lambda channel: channel.queue_declare(name, passive=True)):
        return name
    return None


def _variable(check: str) -> str:
    return "PURCHASE_QUEUE" if check == "purchase-queue" else "DEAD_LETTER_QUEUE"


def _differences(
    connection: pika.BlockingConnection, check: str, queue: str, contract: Mapping[str, Any]
) -> dict[str, Any] | Finding:
    declared: dict[str, Any] = {"durable": True, "auto_delete": False}
    arguments, found = dict(contract), dict[str, Any]()
    for _ in range(_MOST_DIFFERENCES):
        refused = refusal(
            connection,
            lambda channel: channel.queue_declare(queue, arguments=arguments, **declared),
        )
        if refused is None:
            break
        if refused.reply_code == _REFUSED:
            return unknown(
                check,
                f"{queue!r} exists; whether its arguments are the contract's is not told to this"
                " user",
                "run this as a user who may declare it, or see `rabbitmqctl list_queues name"
                " durable arguments`",
            )
        difference = _DIFFERENCE.search(refused.reply_text)
        if difference is None or difference[1] in found:
            return warn(
                check,
                f"{queue!r} is not as the contract has it, RabbitMQ says: {refused.reply_text}",
                "see `rabbitmqctl list_queues name durable arguments`",
            )
        name, current = difference[1], _CURRENT.search(refused.reply_text)
        if current is None:
            if not arguments.get(name):
                found[name] = "…"
                break
            # The text was too long for RabbitMQ: what we sent is in it, and can be shorter.
            arguments[name] = ""
            continue
        found[name] = value = _value(current)
        if name in declared:
            declared[name] = value
        elif value is None:
            arguments.pop(name, None)
        else:
            arguments[name] = value
    return found


def _value(current: re.Match[str]) -> Any:
    if current["none"]:
        return None
    if current["plain"] is not None:
        return {"true": True, "false": False}.get(current["plain"], current["plain"])
    return current["value"] if current["type"] == "longstr" else int(current["value"])


def _own(found: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("x-"): found[name] for name in found if name.startswith("x-")}


def _structure(check: str, queue: str, found: dict[str, Any]) -> Iterator[Finding]:
    remake = "empty it, delete it, and run `flashsale topology`"
    if found.get("durable") is False:
        yield fail(check, f"{queue!r} is not durable: a restart of RabbitMQ deletes it", remake)
    if found.get("auto_delete"):
        yield fail(check, f"{queue!r} is deleted when its last consumer leaves", remake)


def _other(check: str, queue: str, name: str, value: Any) -> Finding:
    if name.startswith("dead-letter-") and check == "purchase-queue":
        return fail(
            check,
            f"{queue!r} has {name}={value!r}, which is not the contract's: what RabbitMQ itself"
            " refuses there goes elsewhere, or is lost; and the API's declaration is refused",
            "correct DEAD_LETTER_QUEUE to the API's name, or delete the empty queue and run"
            " `flashsale topology`",
        )
    remedy = "nothing, if you made it so; the API's declaration of it is refused"
    if name == "queue-type":
        if check == "purchase-queue":
            remedy = f"set PURCHASE_QUEUE_TYPE={value or 'classic'}, if you made it so"
        elif value == "quorum":
            remedy = "it counts each look at a letter: set delivery-limit -1 by a policy"
        else:
            remedy = (
                "it lives on one node, and while that is down no worker begins to consume: move the"
                " letters by `flashsale dead-letters export` and `import`, delete it in between,"
                " and run `flashsale topology`"
            )
    return warn(check, f"{queue!r} has {name}={value!r}, which the contract does not", remedy)


def _unusable(
    connection: pika.BlockingConnection, check: str, queue: str, refused: ChannelClosedByBroker
) -> Finding:
    if refused.reply_code != _NOT_FOUND:
        return fail(
            check,
            f"{queue!r} cannot be used, RabbitMQ says: {refused.reply_text}",
            "give the user of RABBITMQ_URL access to it",
        )
    if name := _api_name(connection, queue):
        return fail(
            check,
            f"{queue!r} does not exist, and {name!r}, as the API calls it, does",
            f"set {_variable(check)}={name}",
        )
    return fail(
        check,
        f"{queue!r} does not exist, so what is published to it is dropped",
        "start a worker, or run `flashsale topology` as a user who may create it",
    )
