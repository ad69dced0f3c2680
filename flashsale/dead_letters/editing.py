"""Changing an event before it is sent again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from flashsale.errors import FlashsaleError


class NotEditable(FlashsaleError):
    """The body is no JSON object, so no key of it can be set."""


class Edit(NamedTuple):
    """What is changed: keys that are set, or the whole body. Neither is the event as it is."""

    keys: Mapping[str, Any]
    body: bytes | None = None

    @property
    def fingerprint(self) -> str:
        """Names this edit without telling its values; empty where nothing is changed."""
        if self.body is None and not self.keys:
            return ""
        about = json.dumps(dict(self.keys), sort_keys=True).encode()
        return hashlib.sha256(about + (self.body or b"")).hexdigest()

    @property
    def described(self) -> str:
        """For the record: which keys, and no value."""
        if self.body is not None:
            return "body"
        return ", ".join(sorted(self.keys))

    def apply(self, body: bytes) -> bytes:
        """The new body. Keys inside NestJS's ``data`` are set there.

        Raises:
            NotEditable: there is no object to set keys in.
        """
        if self.body is not None:
            return self.body
        if not self.keys:
            return body
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise NotEditable("the body is no JSON object; edit it as a whole, with --edit")
        data = document.get("data")
        event = data if "saleId" not in document and isinstance(data, dict) else document
        event.update(self.keys)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(
            errors="surrogatepass"
        )
