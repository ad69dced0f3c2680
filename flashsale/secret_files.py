"""Secrets that the environment names by a file, as Docker and Kubernetes hand them over."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_ENDING = "_FILE"
_MOST_BYTES = 65_536

#: What each file holds, by the name of the variable that holds its path.
SECRET_FILES: Mapping[str, str] = MappingProxyType(
    {
        "DATABASE_URL_FILE": "path of a file that holds `DATABASE_URL`, in its place",
        "DATABASE_PASSWORD_FILE": "path of a file that holds the password for a `DATABASE_URL`"
        " without one, as it is",
        "RABBITMQ_URL_FILE": "path of a file that holds `RABBITMQ_URL`, in its place",
        "RABBITMQ_PASSWORD_FILE": "path of a file that holds the password for a `RABBITMQ_URL`"
        " without one, as it is",
    }
)


def read_secret_files(env: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """What the files hold, by the variables' names without ``_FILE``.

    What is wrong with one is added to `problems`. No problem shows a path: the secret itself may
    stand in its place by mistake.
    """
    found = {}
    for variable in SECRET_FILES:
        path = env.get(variable, "").strip()
        if not path:
            continue
        name = variable.removesuffix(_ENDING)
        if env.get(name, "").strip():
            problems.append(f"{variable}: {name} is set as well; unset one of the two")
            continue
        try:
            found[name] = _read(path)
        except ValueError as problem:
            problems.append(f"{variable}: {problem}")
    return found


def _read(path: str) -> str:
    try:
        # A pipe would have nothing left for the next process that reads its settings.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ValueError("must be the path of a regular file")
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES)
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise ValueError(
            f"must be the path of a file that user {os.geteuid()} may read ({cause})"
        ) from None
    try:
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8") from None
    if not secret.strip():
        raise ValueError("the file is empty")
    if len(content) == _MOST_BYTES or len(secret.splitlines()) > 1 or "\0" in secret:
        raise ValueError("the file holds more than one line of text")
    return secret
