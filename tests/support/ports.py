"""Free TCP ports of 127.0.0.1 for private servers."""

from __future__ import annotations

import random
import socket

# Below the ephemeral range of Linux: a port from it could be taken by an outgoing connection
# while its server is down, or even be connected to itself by a client that keeps reconnecting.
_PORTS = range(15_000, 32_000)
_ATTEMPTS = 100
_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on; never the same twice in one process.

    Raises:
        RuntimeError: no free port was found.
    """
    for _ in range(_ATTEMPTS):
        port = random.SystemRandom().choice(_PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free port found from {_PORTS.start} to {_PORTS.stop - 1}")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # As the servers do it: what lingers of closed connections is no obstacle.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
