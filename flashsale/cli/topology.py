"""``flashsale topology``: the queues and the dead-letter exchange, made or looked at."""

from __future__ import annotations

import json
from typing import Any

import click

from flashsale import exit_codes
from flashsale.brokers.connections import open_blocking
from flashsale.brokers.topology import (
    Part,
    ensure_dead_letter_exchange,
    ensure_topology,
    topology_parts,
)
from flashsale.settings import Settings


@click.command
@click.option("--status", "show_status", is_flag=True, help="List what is there; make nothing.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
def topology(show_status: bool, as_json: bool) -> int:
    """Create what the worker needs in the RabbitMQ of RABBITMQ_URL, where it is missing.

    That is each of PURCHASE_QUEUE and the DEAD_LETTER_QUEUE, as the API declares them, and an
    exchange of the latter's name that leads to it. Nothing that exists is changed, so it may run
    any number of times. A worker may create these by itself; this is for one whose user may not.

    \b
    Examples:
      flashsale topology --status
      RABBITMQ_URL="$ADMIN_RABBITMQ_URL" flashsale topology
      PURCHASE_QUEUE_TYPE=quorum flashsale topology --json
    """
    settings = Settings.from_env()
    names: dict[str, Any] = {
        "purchase_queues": settings.purchase_queues,
        "dead_letter_queue": settings.dead_letter_queue,
    }
    notices: list[str] = []
    with open_blocking(settings.broker_urls, "flashsale topology") as connection:
        before = topology_parts(connection, **names)
        after = before
        if not show_status:
            queue_type = settings.purchase_queue_type
            notices = ensure_topology(connection, **names, queue_type=queue_type)
            _, complaint = ensure_dead_letter_exchange(connection, settings.dead_letter_queue)
            notices += [complaint] if complaint else []
            after = topology_parts(connection, **names)
    states = [(_state(was, now), now) for was, now in zip(before, after, strict=True)]
    if as_json:
        shown = [{"kind": part.kind, "name": part.name, "state": state} for state, part in states]
        click.echo(json.dumps({"parts": shown, "notices": notices}))
    else:
        for state, part in states:
            click.echo(f"{state}  {part.kind} {part.name}")
    for notice in notices:
        click.echo(f"notice: {notice}", err=True)
    if not all(part.exists for part in after):
        click.echo("missing parts are created by `flashsale topology`, as a user who may", err=True)
        return exit_codes.OK if show_status else exit_codes.PARTIAL
    return exit_codes.OK


def _state(was: Part, now: Part) -> str:
    if was.exists:
        return "present"
    return "created" if now.exists else "missing"
