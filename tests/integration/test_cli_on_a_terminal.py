"""What a command writes to a terminal, and what to a file: colours and bars."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys

import pytest

DEMO = [sys.executable, "-m", "flashsale", "demo", "--events", "200"]
_COLOUR = re.compile(r"\x1b\[(?:\d+;)*[39]\d")


def on_a_terminal(**env: str) -> str:
    """All that a demo writes to its terminal."""
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        DEMO, stdin=inner, stdout=inner, stderr=inner, env={**os.environ, "TERM": "xterm", **env}
    )
    os.close(inner)
    written = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while part := os.read(terminal, 65_536):
            written += part
    os.close(terminal)
    assert process.wait(60) == 0
    return written.decode()


def test_a_terminal_gets_colours_and_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    written = on_a_terminal()

    assert _COLOUR.search(written)
    assert "events settled" in written


def test_no_color_is_honoured() -> None:
    written = on_a_terminal(NO_COLOR="1")

    assert "ok" in written
    assert not _COLOUR.search(written)


def test_a_file_gets_neither_colours_nor_a_bar() -> None:
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=60, check=True)

    assert "\x1b" not in done.stdout + done.stderr
    assert "events settled" not in done.stderr
