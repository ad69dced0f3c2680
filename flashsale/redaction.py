"""What must be taken out of a text before people see it."""

from __future__ import annotations

import re

# To the last '@' of the line: in a malformed URL anything before it may be of a password.
_CREDENTIALS = re.compile("(?<=://).*@")


def without_credentials(text: str) -> str:
    """`text` with the credentials of each URL in it replaced by ``***``."""
    return _CREDENTIALS.sub("***@", text)


def printable(text: str) -> str:
    """`text` without what could steer the terminal: anyone may have sent it."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in text
    )
