"""Lets the watchdog end a process that has not moved for two seconds."""

from __future__ import annotations

import flashsale.worker

flashsale.worker._stuck_seconds = lambda _settings: 2.0
