"""What runs in a container of the image, as nearly as that can be had without a container engine.

The tree is the one that docker/install.sh makes, which the image's build runs. A container is a
process tree with namespaces of its own: its first process has the id 1 and the user of the image,
without any capability, and nothing but what is mounted for it can be written, not even /tmp. The
network is the machine's.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import process_tree
from tests.support.waiting import wait_until
from tests.support.workers import RunningWorker

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
#: Where the image has the tree; tests have it elsewhere.
IMAGE_FOLDER = "/opt/flashsale"

_RUN_SECONDS = 60
_SYSTEM_PATH = "/usr/bin:/bin"
# Arguments: root folder, tree, Python's own folder, uid, pairs of folder and place, --, command.
_CONTAINER = """
set -eu
root=$1 tree=$2 python=$3 user=$4
shift 4
mount -t tmpfs -o mode=755 tmpfs "$root"
for each in /usr /etc /bin /lib /lib64 "$python" "$tree"; do
    if [ -L "$each" ]; then
        cp -P "$each" "$root$each"
    elif [ -d "$each" ]; then
        mkdir -p "$root$each"
        mount --bind "$each" "$root$each"
        mount -o remount,bind,ro "$root$each"
    fi
done
while [ "$1" != -- ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    shift 2
done
shift
mkdir -p "$root/dev" "$root/proc"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups \\
    --bounding-set=-all --no-new-privs env -i -C "$tree" "$@"
"""


def instructions(dockerfile: Path = DOCKERFILE) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, each with what follows it on its, joined, line."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = filter(None, text.replace("\\\n", " ").splitlines())
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    last = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


def last_of(word: str) -> str:
    """What the image has of an instruction that counts once."""
    return [rest for each, rest in final_stage() if each == word][-1]


def install(folder: Path) -> None:
    """Run the steps of the image's build, with this Python, into `folder`."""
    subprocess.run(
        [ROOT / "docker" / "install.sh", folder],
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
        timeout=300,
    )


@dataclass
class Image:
    """The image, installed in `tree`."""

    tree: Path
    uid: int = field(default_factory=lambda: int(last_of("USER").partition(":")[0]))

    @property
    def command(self) -> list[str]:
        return list(json.loads(last_of("CMD")))

    @property
    def health_check(self) -> list[str]:
        _, _, check = last_of("HEALTHCHECK").partition(" CMD ")
        return list(json.loads(check))

    @property
    def env(self) -> dict[str, str]:
        found = dict(
            word.split("=", 1)
            for each, rest in final_stage()
            if each == "ENV"
            for word in shlex.split(rest)
        )
        found["PATH"] = found["PATH"].replace("$PATH", _SYSTEM_PATH)
        return {key: value.replace(IMAGE_FOLDER, str(self.tree)) for key, value in found.items()}


@dataclass
class Host:
    """A machine with `image` and the folders that its containers mount, by their places there."""

    image: Image
    root: Path
    mounts: Mapping[str, Path]

    def start(self, command: Sequence[str], env: Mapping[str, str]) -> RunningWorker:
        """Start a container that the caller closes."""
        return RunningWorker({}, command=self._argv(command, env))

    def run(
        self, command: Sequence[str], env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        return _run(self._argv(command, env))

    def enter(
        self, container: RunningWorker, command: Sequence[str], env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a running container, as ``docker exec`` does."""
        pid = first_process(container)
        uid = str(self.image.uid)
        enter = ["nsenter", f"--target={pid}", "--mount", "--pid", "--root", "--wd"]
        privileges = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"]
        limits = ["--bounding-set=-all", "--no-new-privs"]
        return _run([*enter, *privileges, *limits, "env", "-i", *self._variables(env), *command])

    def _argv(self, command: Sequence[str], env: Mapping[str, str]) -> list[str]:
        namespaces = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation=slave",
        ]
        python = sys.base_prefix
        folders = [str(self.root), str(self.image.tree), python, str(self.image.uid)]
        mounts = [str(each) for place, folder in self.mounts.items() for each in (folder, place)]
        script = ["sh", "-c", _CONTAINER, "container", *folders, *mounts, "--"]
        return [*namespaces, *script, *self._variables(env), *command]

    def _variables(self, env: Mapping[str, str]) -> list[str]:
        return [f"{key}={value}" for key, value in {**self.image.env, **env}.items()]


def first_process(container: RunningWorker) -> int:
    """The process of this machine that is process 1 of the container, once it runs."""

    def found() -> int | None:
        container.check_running()
        for pid in process_tree(container.pid)[1:]:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            if re.search(r"^NSpid:.*\t1$", status, re.MULTILINE) and "Uid:\t0" not in status:
                return pid
        return None

    pid = wait_until(found, _RUN_SECONDS, "the container's first process runs")
    assert pid is not None
    return pid


def stop(container: RunningWorker) -> None:
    """Ask it to stop, as ``docker stop`` does."""
    os.kill(first_process(container), signal.SIGTERM)


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
