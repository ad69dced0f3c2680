"""``python -m tests.simulation SEED``: the story of one seed, and what was wrong with it."""

from __future__ import annotations

import logging
import sys

from tests.simulation.simulation import Simulation


def main() -> int:
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.stderr.write("usage: python -m tests.simulation SEED\n")
        return 2
    logging.disable(logging.CRITICAL)
    simulation = Simulation(int(sys.argv[1]))
    try:
        simulation.run()
    finally:
        # Also on the way out of an error, whose traceback then stands below the story.
        for moment, *words in simulation.trace:
            print(f"{moment:9.2f}  {' '.join(str(word) for word in words)}")  # noqa: T201
    print(f"seed {simulation.seed} holds")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
