"""Policies, which AMQP does not tell of: asked of RabbitMQ's management API, where it answers."""

from __future__ import annotations

import base64
import http
import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pika

from flashsale.doctor.finding import Finding, ok, unknown
from flashsale.doctor.queues import losses
from flashsale.doctor.quorum import examine_quorum
from flashsale.settings import Settings

_PORT, _TLS_PORT = 15_672, 15_671
_ANSWER_SECONDS = 3.0
_MOST_BYTES = 1_000_000


class _NotTold(Exception):
    """The API did not answer, or refused; the text says which."""


def examine_policies(
    node: pika.URLParameters,
    management: tuple[str, int] | None,
    settings: Settings,
    version: tuple[int, ...],
) -> Iterator[Finding]:
    """Whether a policy, or what quorum queues do by themselves, makes any lose messages."""
    for queue in (*settings.purchase_queues, settings.dead_letter_queue):
        try:
            found = _ask(
                node, management, f"/api/queues/{_quoted(node.virtual_host)}/{_quoted(queue)}"
            )
        except _NotTold as why:
            yield unknown(
                "policies",
                f"not told: {why}",
                f"see `rabbitmqctl list_policies --vhost {node.virtual_host}`, or name the"
                " management API's address with --management",
            )
            return
        definition = found.get("effective_policy_definition") or {}
        if not isinstance(definition, dict):  # an empty one is a list in some versions
            definition = {}
        findings = list(losses("policies", queue, definition, "policy"))
        if found.get("type") == "quorum":
            of_letters = queue == settings.dead_letter_queue
            findings += examine_quorum(found, definition, version, of_letters=of_letters)
        yield from findings or [
            ok("policies", f"{queue!r} has {'a harmless' if definition else 'no'} policy")
        ]


def _ask(node: pika.URLParameters, management: tuple[str, int] | None, path: str) -> dict[str, Any]:
    tls = node.ssl_options is not None
    host, port = management or (node.host, _TLS_PORT if tls else _PORT)
    connection: http.client.HTTPConnection
    if tls:
        connection = http.client.HTTPSConnection(
            host, port, timeout=_ANSWER_SECONDS, context=node.ssl_options.context
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    user = f"{node.credentials.username}:{node.credentials.password}"
    headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
    where = f"the management API at {host}:{port}"
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException):
        raise _NotTold(f"{where} does not answer") from None
    finally:
        connection.close()
    if response.status == http.HTTPStatus.NOT_FOUND:
        raise _NotTold("the queue does not exist")
    if response.status != http.HTTPStatus.OK:
        raise _NotTold(f"{where} answers {response.status}: the user needs the tag `management`")
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _NotTold(f"{where} answers something else")
    return found


def _quoted(name: str) -> str:
    return quote(name, safe="")
