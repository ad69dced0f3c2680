"""``python -m tests.fuzz``: many inputs for the decoder, and a count of what became of them.

With atheris installed, one half of the inputs is led by the coverage of the decoder; the other
half, or all, are known events that are changed at random. Exit code 1, and the input as a Python
literal, where one of them is neither a purchase nor refused as it should be.
"""

# ruff: noqa: T201  (this is a command: it prints)

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import NoReturn

from rich.console import Console
from rich.progress import Progress

_STEP = 1_000


class Fuzzer:
    """Feeds `inputs` bodies to `check` and counts the outcomes; ends the process at the last."""

    def __init__(self, inputs: int, check: Callable[[bytes], str]) -> None:
        self._inputs = inputs
        self._check = check
        self._outcomes: Counter[str] = Counter()
        self._begun = time.monotonic()
        console = Console(stderr=True)
        self._bar = Progress(console=console, disable=not console.is_terminal)
        self._bar.start()
        self._task = self._bar.add_task("Inputs", total=inputs)
        self.done = 0

    def feed(self, data: bytes) -> None:
        try:
            self._outcomes[self._check(data)] += 1
        except BaseException:  # noqa: BLE001  # whatever it lets out is a finding
            self._bar.stop()
            traceback.print_exc()
            print(f"after {self.done:,} inputs: {data!r}", flush=True)
            os._exit(1)
        self.done += 1
        if self.done % _STEP == 0:
            self._bar.update(self._task, completed=self.done)
        if self.done == self._inputs:
            self._end()

    def _end(self) -> NoReturn:
        self._bar.stop()
        seconds = time.monotonic() - self._begun
        print(f"{self.done:,} inputs in {seconds:.0f} s, none with another outcome than these:")
        for outcome, count in self._outcomes.most_common():
            print(f"{count:>12,}  {outcome}")
        sys.stdout.flush()
        os._exit(0)  # libFuzzer knows no other end


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Fuzz the decoder of purchase events."
    )
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, help="repeats a run (a new one each time)")
    options = parser.parse_args()
    if options.inputs < 1:
        parser.error("--inputs must be at least 1")
    seed = random.randrange(2**31) if options.seed is None else options.seed
    led = _instrument()
    share = "half of them" if led else "none of them, without atheris,"
    print(f"seed {seed}; {share} led by coverage", file=sys.stderr)
    # Not before the decoder is instrumented: these import it.
    from tests.fuzz.check import check  # noqa: PLC0415
    from tests.fuzz.inputs import nearly_event  # noqa: PLC0415

    fuzzer = Fuzzer(options.inputs, check)
    choice = random.Random(seed)
    for _ in range(options.inputs // 2 if led else options.inputs):
        fuzzer.feed(nearly_event(choice))
    _fuzz_by_coverage(fuzzer, seed)


def _instrument() -> bool:
    """Import the decoder so that atheris sees its branches; False where there is no atheris."""
    try:
        import atheris  # noqa: PLC0415
    except ImportError:
        return False
    rules = ["tests.support.refusals", "tests.support.plain_json"]
    with atheris.instrument_imports(include=["flashsale.purchases", *rules]):
        importlib.import_module("flashsale.purchases")
        importlib.import_module("tests.support.refusals")
    return True


def _fuzz_by_coverage(fuzzer: Fuzzer, seed: int) -> None:
    import atheris  # noqa: PLC0415

    from tests.fuzz.inputs import LONGEST, changed, nearly_event  # noqa: PLC0415

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        choice = random.Random(seed)
        return (changed(data, choice) if len(data) > 1 else nearly_event(choice))[:max_size]

    arguments = [f"-seed={seed or 1}", f"-max_len={LONGEST}", "-len_control=0", "-verbosity=0"]
    arguments += [f"-artifact_prefix={tempfile.gettempdir()}/"]
    atheris.Setup([sys.argv[0], *arguments], fuzzer.feed, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
