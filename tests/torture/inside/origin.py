"""Says in a worker's log where its flashsale was loaded from."""

from __future__ import annotations

import sys

import flashsale

sys.stderr.write(f"flashsale of {flashsale.__file__}\n")
