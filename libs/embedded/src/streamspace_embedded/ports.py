"""TCP ports on the loopback interface: free ones, and whether one is taken."""

import errno
import random
import socket

LOOPBACK = "127.0.0.1"
_RANGE = range(10_000, 30_000)


def free_port(host: str = LOOPBACK) -> int:
    """A port that was free a moment ago. Whoever binds it must cope with losing the race.

    It is below the range the kernel gives to outgoing connections: a client that keeps
    dialling a stopped server's port could otherwise connect to itself, and the server
    would never get its port back.
    """
    while not is_free(port := random.choice(_RANGE), host):
        continue
    return port


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now."""
    return obstacle(port, host) is None


def obstacle(port: int, host: str = LOOPBACK) -> str | None:
    """Why no server could listen there now, in words that follow "Port 80"; None if it could."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            return "may not be used by you: ports below 1024 mostly are for root"
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "is taken by another program"
            return f"cannot be had at {host}: {(error.strerror or str(error)).lower()}"
    return None


def answers(port: int, host: str = LOOPBACK, timeout: float = 0.5) -> bool:
    """Whether something accepts connections there; `timeout` in seconds."""
    try:
        with socket.create_connection((host, port), timeout=timeout):
            return True
    except OSError:
        return False
