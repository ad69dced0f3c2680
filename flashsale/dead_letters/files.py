"""Dead letters as lines of JSON, to carry them out of RabbitMQ and in again."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from flashsale.brokers.dead_letter_writer import HEADER_PREFIX
from flashsale.brokers.publishing import Outgoing
from flashsale.dead_letters.letter import DeadLetter
from flashsale.errors import FlashsaleError

_LONGEST_TEXT = 255


class BadLine(FlashsaleError):
    """A line is no exported dead letter; the text says why, and holds nothing of it."""


def body_fields(body: bytes) -> dict[str, str]:
    """The body as ``body`` where it is UTF-8, else as ``bodyBase64``."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"bodyBase64": base64.b64encode(body).decode()}


def export_line(letter: DeadLetter) -> str:
    """The letter on one line, without its end. Of the headers, our own are carried."""
    headers = {
        name: value for name, value in letter.headers.items() if name.startswith(HEADER_PREFIX)
    }
    whole = {**letter.record(), **body_fields(letter.body), "headers": headers}
    return json.dumps(whole, default=str)


def import_line(line: bytes, queue: str) -> Outgoing:
    """The dead letter of an exported line, to be published to `queue`.

    Raises:
        BadLine: it is none, or the body is not the one that was exported.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise BadLine("not one JSON document") from None
    if not isinstance(document, dict):
        raise BadLine("not a JSON object")
    body = _body(document)
    if document.get("sha256") not in (None, hashlib.sha256(body).hexdigest()):
        raise BadLine("the body is not the one of its sha256")
    headers = document.get("headers") or {}
    if not isinstance(headers, dict):
        raise BadLine("headers is no object")
    return Outgoing(queue, body, {name: _header(name, headers[name]) for name in headers})


def _body(document: dict[str, Any]) -> bytes:
    text, coded = document.get("body"), document.get("bodyBase64")
    try:
        if isinstance(text, str):
            return text.encode()
        if isinstance(coded, str):
            return base64.b64decode(coded, validate=True)
    except ValueError:
        raise BadLine("the body cannot be decoded") from None
    raise BadLine("neither body nor bodyBase64 is there")


def _header(name: str, value: Any) -> str | int:
    if not name.startswith(HEADER_PREFIX) or len(name) > _LONGEST_TEXT:
        raise BadLine(f"a header is none of {HEADER_PREFIX}…")
    # bool is an int, and RabbitMQ's integers have 64 bits.
    if isinstance(value, str) and len(value) <= _LONGEST_TEXT:
        return value
    if type(value) is int and abs(value) < 2**63:
        return value
    raise BadLine("a header is neither a short text nor a whole number")
