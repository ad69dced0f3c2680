"""taskiq's own JSON envelope around the event, as `confirm.kiq(event)` would publish it."""

import json
import uuid


def envelope(body: bytes) -> tuple[bytes, dict[str, str]]:
    id_ = uuid.uuid4().hex
    message = {
        "task_id": id_,
        "task_name": "confirm",
        "labels": {},
        "labels_types": {},
        "args": [json.loads(body)],
        "kwargs": {},
    }
    headers = {"task_id": id_, "task_name": "confirm"}
    return json.dumps(message, separators=(",", ":")).encode(), headers
