"""What quorum queues do that classic ones do not, as RabbitMQ's management API tells of a queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flashsale.doctor.finding import Finding, fail, warn

# https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
_LIMITED_SINCE = (4, 0)
_DEFAULT_LIMIT = 20
_POLICY = """`rabbitmqctl set_policy flashsale '^NAME$' '{"delivery-limit": -1}'`"""


def examine_quorum(
    queue: Mapping[str, Any],
    policy: Mapping[str, Any],
    version: Sequence[int],
    *,
    of_letters: bool,
) -> Iterator[Finding]:
    """What is wrong with a quorum queue, of which the API tells `queue`; nothing where all is well.

    Args:
        policy: The definition of the policies that count for it.
        version: RabbitMQ's, as numbers.
        of_letters: Whether it is the dead-letter queue.
    """
    name, arguments = str(queue.get("name", "")), queue.get("arguments") or {}
    limits = [policy.get("delivery-limit"), arguments.get("x-delivery-limit")]
    given = [limit for limit in limits if isinstance(limit, int) and limit >= 0]
    if not given and limits == [None, None] and tuple(version) >= _LIMITED_SINCE:
        given = [_DEFAULT_LIMIT]
    if given:
        yield _limited(name, min(given), version, of_letters=of_letters)
    members, online = queue.get("members") or [], queue.get("online") or []
    if len(members) == 1:
        yield warn(
            "policies",
            f"{name!r} is a quorum queue with one member, {members[0]}: it is no safer than a"
            " classic one",
            "add members with `rabbitmq-queues grow`, see docs/clustering.md",
        )
    elif away := sorted(set(members) - set(online)):
        yield warn(
            "policies",
            f"of the {len(members)} members of {name!r} {', '.join(away)} is away",
            "start that node: with half of them away the queue stands still",
        )


def _limited(name: str, limit: int, version: Sequence[int], *, of_letters: bool) -> Finding:
    remedy = (
        f"set no limit: {_POLICY.replace('NAME', name)}"
        if tuple(version) >= _LIMITED_SINCE
        else "take delivery-limit out of the policy; as an argument it cannot be changed"
    )
    if of_letters:
        return fail(
            "policies",
            f"{name!r} has delivery-limit {limit}, and each look at a letter counts as a delivery:"
            " RabbitMQ then removes it",
            remedy,
        )
    return warn(
        "policies",
        f"{name!r} has delivery-limit {limit}: events that are handed back as often, by workers"
        " that stop or wait for the database, become dead letters for no fault of theirs",
        remedy,
    )
