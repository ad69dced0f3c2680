"""Dramatiq's own JSON envelope around the event, as `confirm.send(event)` would publish it."""

import json
import time
import uuid


def envelope(body: bytes) -> tuple[bytes, None]:
    message = {
        "queue_name": "purchase",
        "actor_name": "confirm",
        "args": [json.loads(body)],
        "kwargs": {},
        "options": {},
        "message_id": str(uuid.uuid4()),
        "message_timestamp": int(time.time() * 1000),
    }
    return json.dumps(message, separators=(",", ":")).encode(), None
