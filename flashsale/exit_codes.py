"""The exit codes of all that flashsale runs: they are contract, for scripts and supervisors.

Those of commands say which part the operator has to look at, see docs/operations.md.
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2  # the command line, or the environment
BROKER: Final = 3
DATABASE: Final = 4
PARTIAL: Final = 5  # done in part: the output says what is left
STUCK: Final = 70  # sysexits.h: EX_SOFTWARE; the watchdog has ended the process
INTERRUPTED: Final = 130
