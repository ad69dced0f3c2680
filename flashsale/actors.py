"""What ``dramatiq flashsale.actors`` loads: the worker of this process, from its environment.

Importing this module connects to nothing and starts nothing; Dramatiq's boot does.
"""

from __future__ import annotations

import sys

import dramatiq

from flashsale import exit_codes
from flashsale.errors import SettingsError
from flashsale.logs import quieten_libraries
from flashsale.process import ProcessLifecycle
from flashsale.settings import Settings
from flashsale.worker import PurchaseWorker

quieten_libraries()
try:
    settings = Settings.from_env()
    worker = PurchaseWorker(settings)
except SettingsError as error:
    # Not an ImportError for Dramatiq to print a traceback of: the operator needs these lines only.
    sys.stderr.write(f"flashsale cannot start, its environment is wrong:\n{error}\n")
    sys.exit(exit_codes.USAGE)

# Middleware added first is the last to hear of a shutdown's end: it logs to the very last line.
worker.broker.middleware.insert(0, ProcessLifecycle(settings, worker.report))
dramatiq.set_broker(worker.broker)
confirm_purchases = worker.actor
