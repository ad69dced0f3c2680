"""Celery's message protocol, version 2, as `confirm.delay(event)` would publish it."""

import json
import uuid
from typing import Any


def envelope(body: bytes) -> tuple[bytes, dict[str, Any]]:
    id_ = str(uuid.uuid4())
    embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    headers = {"lang": "py", "task": "confirm", "id": id_, "root_id": id_, "retries": 0}
    return json.dumps([[json.loads(body)], {}, embedded]).encode(), headers
