"""Where the management API does not tell, the doctor says why, and what to do instead."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pika
import pytest

from flashsale.doctor.finding import Finding, Level
from flashsale.doctor.management import examine_policies
from flashsale.settings import Settings
from tests.support.ports import free_port

SETTINGS = Settings.from_env({"RABBITMQ_URL": "amqp://worker:canary@127.0.0.1/shop"})
NODE = pika.URLParameters(SETTINGS.broker_urls[0])


class Answers(http.server.BaseHTTPRequestHandler):
    """An API that gives one answer to everything."""

    status = 200
    body = b"{}"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing: a test's output is pytest's."""


@pytest.fixture
def api() -> Iterator[tuple[type[Answers], int]]:
    answers = type("OneAnswer", (Answers,), {})
    with http.server.HTTPServer(("127.0.0.1", 0), answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield answers, server.server_port
        server.shutdown()
        thread.join()


def findings(port: int) -> list[Finding]:
    return list(examine_policies(NODE, ("127.0.0.1", port), SETTINGS, (3, 13)))


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (401, b"", "the management API at 127.0.0.1:{port} answers 401: the user needs the tag"),
        (404, b"", "the queue does not exist"),
        (200, b"<html>", "the management API at 127.0.0.1:{port} answers something else"),
        (200, b"[]", "the management API at 127.0.0.1:{port} answers something else"),
    ],
)
def test_an_answer_that_tells_nothing_is_told_with_another_way(
    api: tuple[type[Answers], int], status: int, body: bytes, why: str
) -> None:
    answers, port = api
    answers.status, answers.body = status, body

    (finding,) = findings(port)

    assert finding.level is Level.UNKNOWN
    assert why.format(port=port) in finding.says
    assert "rabbitmqctl list_policies --vhost shop" in finding.remedy


def test_no_answer_is_told_without_the_password() -> None:
    (finding,) = findings(free_port())

    assert "does not answer" in finding.says
    assert "canary" not in finding.says + finding.remedy


def test_queues_without_a_policy_are_well_also_where_none_is_written_as_a_list(
    api: tuple[type[Answers], int],
) -> None:
    answers, port = api
    answers.body = json.dumps({"type": "classic", "effective_policy_definition": []}).encode()

    assert [(each.level, each.says) for each in findings(port)] == [
        (Level.OK, f"{queue!r} has no policy")
        for queue in (*SETTINGS.purchase_queues, SETTINGS.dead_letter_queue)
    ]
