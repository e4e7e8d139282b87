"""Connections to PostgreSQL that stay open and carry nothing any more.

A firewall or a NAT forgets a connection, a cable is pulled, a proxy in between hangs: neither
end is told, and by default each waits for hours. Here is what both ends are told to do:

* The kernels ask whether the other end is there (`keep_alive`, `SERVER_SIDE`), which also
  keeps a NAT from forgetting a connection that is only idle.
* A proxy's kernel answers such questions for the dead as well. So an answer that has not
  come after `NO_ANSWER` is taken for one that never will, and the server ends a transaction
  that nobody goes on with, and one that takes absurdly long. The second is not the same: a
  server that was asked to prepare a statement waits for what to do with it without a limit.
"""

import socket
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

from streamspace_common.store.errors import StoreUnavailableError, unreachable

NO_ANSWER: Final = 12.0
"""Seconds until an answer that has not come never will. The server ends every statement of a
service before (`statement_timeout`), and a server that hung for 8 seconds may go on."""

_IDLE: Final = 10
"""Seconds without a byte until the other end is asked: shorter than any NAT's memory."""
_INTERVAL: Final = 5
_PROBES: Final = 3
_GONE: Final = _IDLE + _INTERVAL * _PROBES
"""Seconds until a kernel gives an end up that it hears nothing from."""

SERVER_SIDE: Final[Mapping[str, str]] = {
    "tcp_keepalives_idle": str(_IDLE),
    "tcp_keepalives_interval": str(_INTERVAL),
    "tcp_keepalives_count": str(_PROBES),
    # Also of what was sent and is not confirmed, for which keepalives do not ask.
    "tcp_user_timeout": str(_GONE * 1000),
}
"""Server settings of a connection: what PostgreSQL's end of it does."""

TRANSACTION: Final = 20_000
"""Milliseconds for a whole transaction of a service; what locked a row is gone after this."""
_KNOWS_TRANSACTION_TIMEOUT: Final = 17
"""PostgreSQL's version since which there is such a limit."""


def keep_alive(connection: Any) -> None:
    """Have our kernel notice that the server's end of an asyncpg connection is gone.

    Does nothing on a Unix socket, whose ends know of each other.
    """
    found = connection._transport.get_extra_info("socket")  # noqa: SLF001 - asyncpg has no setting
    if found is None or found.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _IDLE),
        ("TCP_KEEPINTVL", _INTERVAL),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _GONE * 1000),
    ):
        # Not every system has all of them.
        if (number := getattr(socket, option, None)) is not None:
            found.setsockopt(socket.IPPROTO_TCP, number, value)


def watch(engine: Engine) -> None:
    """Keep the connections of an engine on asyncpg alive, and give those up that are silent.

    Their statements need a `command_timeout`: what misses an answer then raises
    `StoreUnavailableError`, and the pool distrusts all connections that are as old.
    """
    event.listen(engine, "connect", _keep_alive)
    event.listen(engine, "handle_error", _give_up)


def limit_transactions(engine: Engine) -> None:
    """Have the server end transactions of this engine that take longer than `TRANSACTION`."""
    event.listen(engine, "connect", _limit)


def _keep_alive(dbapi_connection: Any, _record: object) -> None:
    keep_alive(dbapi_connection.driver_connection)


def _limit(dbapi_connection: Any, _record: object) -> None:
    if dbapi_connection.driver_connection.get_server_version().major < _KNOWS_TRANSACTION_TIMEOUT:
        return
    dbapi_connection.run_async(
        lambda connection: connection.execute(f"SET transaction_timeout = {TRANSACTION}")
    )


def _give_up(context: ExceptionContext) -> StoreUnavailableError | None:
    if not isinstance(context.original_exception, TimeoutError):
        return None
    context.is_disconnect = True
    # By default a timeout tells of one connection only.
    context.invalidate_pool_on_disconnect = True
    return unreachable()
