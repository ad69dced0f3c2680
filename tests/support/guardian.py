"""Runs one server and ends it when the owner ends, in whatever way: a program, not a module.

    guardian.py OWNER_PID SIGNAL FOLDER USER COMMAND...

Prints the server's pid, which leads a process group of its own. When the owner is gone it sends
SIGNAL to the server, then ends what is left of the group, and removes FOLDER.
A process of its own, because PR_SET_PDEATHSIG follows the *thread* that started the child: a
server started from a short-lived thread would die with that thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_ENDING_SECONDS = 10
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    owner_pid, ending_signal = int(sys.argv[1]), int(sys.argv[2])
    folder, user, command = sys.argv[3], sys.argv[4], sys.argv[5:]
    owner = os.pidfd_open(owner_pid)
    if os.getppid() != owner_pid:
        return 1  # the owner ended before it could be watched

    def die_with_guardian() -> None:
        # Runs after the change of user, which would clear it.
        _libc.prctl(_PR_SET_PDEATHSIG, ending_signal)

    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        cwd=folder,
        user=user or None,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        process_group=0,
        preexec_fn=die_with_guardian,  # noqa: PLW1509  (this program has one thread)
    )
    print(server.pid, flush=True)  # noqa: T201
    ended, _, _ = select.select([owner, os.pidfd_open(server.pid)], [], [])
    if owner in ended:
        server.send_signal(ending_signal)
        try:
            server.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # children that it has left behind
        shutil.rmtree(folder, ignore_errors=True)
    return server.wait() & 0xFF


if __name__ == "__main__":
    sys.exit(main())
