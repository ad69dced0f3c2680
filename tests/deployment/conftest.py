"""The image, the stack of docker/compose.yaml and the manifests, held against what flashsale is.

Run by `tox run -e deployment`, which has the tools for it: schemas, hadolint, shellcheck.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import Host, Image, install


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    # Not pytest's own folder, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory(prefix="flashsale-image-") as folder:
        Path(folder).chmod(0o755)
        install(Path(folder, "tree"))
        yield Image(Path(folder, "tree"))


@pytest.fixture
def host(image: Image) -> Iterator[Host]:
    """Where containers run whose state folder and secrets are empty at first."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a container's file system needs root, and Linux")
    with tempfile.TemporaryDirectory(prefix="flashsale-host-") as folder:
        root, state, secrets = (Path(folder, name) for name in ("root", "state", "secrets"))
        for each in (root, state, secrets):
            each.mkdir()
        os.chown(state, image.uid, image.uid)
        state.chmod(0o700)
        yield Host(image, root, {"/var/lib/flashsale": state, "/run/secrets": secrets})
