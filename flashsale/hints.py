"""What to do about a log line: the next step, by the line's event.

Each event that is ever logged as a warning or worse has its hint here; docs/logs.md lists all.
"""

from __future__ import annotations

from collections.abc import Mapping

HINTS: Mapping[str, str] = {
    "audit.flush_failed": "mend the database; the rows wait in memory meanwhile",
    "audit.queue_full": "mend the database; the reconciler writes what was dropped later",
    "audit.rows_refused": (
        "mend the constraint or trigger that `causes` names; a restart has missing CONFIRMED rows"
        " written"
    ),
    "audit.reconcile_failed": "mend what `cause` names; the next search makes up for it",
    "batch.held": (
        "nothing, if it is rare; else mend what `cause` names; the events are held meanwhile"
    ),
    "broker.connection_lost": "look at RabbitMQ's own log; the worker reconnects by itself",
    "broker.deliveries_not_diverted": "install a version of pika that setup.cfg names",
    "broker.queue_lost": "mend what `cause` names; the other queues go on, and this one by itself",
    "broker.unreachable": "mend what `cause` names; the worker reconnects by itself",
    "connection.exposed": "see TLS in docs/security.md",
    "dead_letters.unwritten": "look at the dead-letter queue: is it there, full, or not allowed?",
    "deliveries.given_up": (
        "report `cause`; once it is mended, flashsale dead-letters retry --reason unclassified"
    ),
    "events.dead_lettered": "run flashsale dead-letters groups, and see docs/dead-letters.md",
    "logs.dropped": "let the log be read faster, or raise FLASHSALE_LOG_LEVEL",
    "metrics.unserved": "set FLASHSALE_METRICS_PORT to a free port of this worker's own; 0 is none",
    "replay.failed": "mend what `cause` names, then start it again: the rest is where it was",
    "replay.unlocked": "nothing, or let this user declare `<DEAD_LETTER_QUEUE>.lock`",
    "reports.unwritten": "let the worker write to FLASHSALE_STATE_FOLDER, for metrics and probes",
    "suspects.unusable": "let the worker write to FLASHSALE_STATE_FOLDER, on a disk that stays",
    "topology.default_exchange": "nothing, or run `flashsale topology` for least privilege",
    "topology.foreign": "nothing, if you made the queue so; else delete it while it is empty",
    "work.suspended": "mend what `cause` names; nothing is lost, and work resumes by itself",
    "work.waiting": "mend what `cause` names; nothing is lost, and work resumes by itself",
    "worker.not_conserved": "check the sale's orders, and report this defect with `tally`",
    "worker.shutdown_abandoned": "look at what did not answer; events that were open come again",
    "worker.start_failed": "mend what `cause` names, then start again",
    "worker.stop_failed": "look at `cause`; events that were open come again",
    "worker.stuck": "let the supervisor start it again; exit code 70. If it recurs, report `cause`",
}
