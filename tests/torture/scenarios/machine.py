"""The machine around the worker: its clock, and whoever reads its logs."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from tests.torture.harness import Round
from tests.torture.scenario import scenario

_CLOCK_SOURCE = Path(__file__).parent.parent / "inside" / "clock.c"
_HOUR = 3_600
_AUDIT_SECONDS = 5.0
# With five events to a batch, the lines of this many bad ones fill every pipe on their way.
_SMALL_BATCHES = {
    "FLASHSALE_BATCH_SIZE": "5",
    "FLASHSALE_PREFETCH": "5",
    "FLASHSALE_LOG_LEVEL": "DEBUG",
}
_BAD_EVENTS = 2_500


@scenario("F30", "nobody reads the log: its pipe is full")
def stalled_log(round_: Round) -> None:
    folder = Path(tempfile.mkdtemp(prefix="flashsale-log-"))
    fifo = folder / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4_096)
    writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4_096)
    try:
        round_.start_workers(masters=1, settings=_SMALL_BATCHES, log=fifo)
        bad = [round_.events.bad() for _ in range(_BAD_EVENTS)]
        round_.load.publish(bad)
        good = [round_.events.good() for _ in range(100)]
        round_.load.publish(good)
        round_.expect_within(
            lambda: round_.orders() == len(good), 40, "orders are written while nobody reads"
        )
    finally:
        os.close(writer)
        threading.Thread(target=_read_all, args=(reader,), daemon=True).start()
        shutil.rmtree(folder)


def _no_compiler() -> str:
    return "" if shutil.which("cc") else "the false clock has to be compiled, and there is no cc"


@scenario("F33", "the clock jumps an hour forth or back, and back again", missing=_no_compiler)
def clock_jumps(round_: Round) -> None:
    round_.audit_may_lag = False
    with tempfile.TemporaryDirectory(prefix="flashsale-clock-") as name:
        library, offset = Path(name) / "clock.so", Path(name) / "offset"
        compile_ = ["cc", "-shared", "-fPIC", "-O", "-o", str(library), str(_CLOCK_SOURCE)]
        subprocess.run(compile_, check=True)
        offset.write_bytes(struct.pack("q", 0))
        round_.start(settings={"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(offset)})
        there = round_.choice.choice([_HOUR, -_HOUR])
        for jump in (there, 0):
            _write_in_place(offset, struct.pack("q", jump))
            round_.pause(0.5, 1.5)
            round_.healed()
        round_.load.stop()
        # Too few for the size trigger: only the timer can write their audit rows.
        round_.expect_within(round_.is_quiet, 15, "the queue drains")
        round_.load.publish([round_.events.good() for _ in range(5)])
        round_.expect_within(
            lambda: not round_.orders_without_audit(), _AUDIT_SECONDS, "the timer flushes the audit"
        )


def _write_in_place(file: Path, content: bytes) -> None:
    """The workers have it mapped, so it must stay the same file."""
    with file.open("r+b") as opened:
        opened.write(content)


def _read_all(reader: int) -> None:
    os.set_blocking(reader, True)
    while os.read(reader, 65_536):
        pass
    os.close(reader)
