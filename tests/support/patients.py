"""A sound set-up for the doctor to examine, and for tests to harm."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flashsale.cli import cli, exits
from tests.support.shop import Shop


class Patient:
    """A sound set-up, to be harmed, and what the doctor says of it."""

    def __init__(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.shop = shop
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.set(**shop.environment())

    def set(self, **environment: str) -> None:
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)

    def remake(self, queue: str, **declared: Any) -> None:
        """Put a queue in the place of one of the two."""
        with self.shop.channel() as channel:
            channel.queue_delete(queue)
            channel.queue_declare(queue, **{"durable": True, **declared})

    def examine(self, *arguments: str) -> tuple[int, list[dict[str, str]]]:
        """The exit code, and the findings that are not ok."""
        code = exits.run(cli, ["doctor", "--json", *arguments])
        findings = json.loads(self._capsys.readouterr().out)["findings"]
        # No management API runs beside these servers.
        return code, [
            finding
            for finding in findings
            if finding["level"] != "ok" and "management API" not in finding["says"]
        ]
