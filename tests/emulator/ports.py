"""TCP ports of the loopback interface, given to one process at a time.

A port of the kernel's choice can be taken by another process until its server has started. So ports are counted
through, below the range that the kernel gives to connections, and all emulators of this user share the count.
"""

from __future__ import annotations

import fcntl
import socket

from .cache import cache_folder
from .errors import EmulatorError

LOCALHOST = "127.0.0.1"
# Linux gives out 32768 to 60999 by itself; macOS and IANA begin at 49152.
FIRST_PORT, LAST_PORT = 20_000, 31_999


def free_port() -> int:
    """Returns a port on which nothing listens, and that no other caller gets for thousands of calls."""
    with (cache_folder() / "next-port").open("a+", encoding="ascii") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        text = counter.read()
        port = int(text) if text.isdecimal() and FIRST_PORT <= int(text) <= LAST_PORT else FIRST_PORT
        for _ in range(LAST_PORT - FIRST_PORT):
            chosen, port = port, port + 1 if port < LAST_PORT else FIRST_PORT
            if _is_free(chosen):
                counter.truncate(0)
                counter.write(str(port))
                return chosen
    raise EmulatorError(f"no port from {FIRST_PORT} to {LAST_PORT} is free: stop what listens there")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
        return True
