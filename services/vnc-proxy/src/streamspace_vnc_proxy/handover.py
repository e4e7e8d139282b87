"""Handing a connection on to another server, byte by byte.

Behind one address, a load balancer may send an agent's dial-back to any replica. The
tunnel's id names the one that waits; the connection is piped there, with the request as
it came and a mark on it, so that it is handed on once and never in circles. The agents'
ingress hands on all of its connections. The extra hop costs about as much as any TCP proxy.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from streamspace_common.relay.pump import Pump
from streamspace_common.relay.stream import adopt, connect_stream
from streamspace_common.runtime.logging import get_logger
from streamspace_vnc_proxy.front import Answer
from streamspace_vnc_proxy.tasks import Tasks

log = get_logger(__name__)

MARK = "x-streamspace-handed-over"
CONNECT_TIMEOUT = 3.0


class HandOvers:
    """Pipes connections to peers. Its tasks live as long as the pipes."""

    def __init__(self) -> None:
        self._tasks = Tasks()

    def __len__(self) -> int:
        """Pipes open right now."""
        return len(self._tasks)

    async def close(self) -> None:
        """End all pipes: their viewers, at other replicas, reconnect."""
        await self._tasks.finish(0)

    def take(
        self,
        transport: asyncio.Transport,
        data: bytes,
        host: str,
        port: int,
        *,
        while_open: AbstractContextManager[Any] | None = None,
        on_unreachable: Callable[[], None] = lambda: None,
    ) -> None:
        """Carry on with `transport` at the peer, which is sent `data` first.

        `while_open` is entered for as long as the pipe is there; `on_unreachable` is called in
        its place when the peer cannot be reached.
        """
        leg = adopt(transport)

        async def pipe() -> None:
            try:
                peer = await connect_stream((host, port), timeout=CONNECT_TIMEOUT)
            except OSError as error:
                log.warning("peer unreachable", host=host, port=port, error=str(error))
                on_unreachable()
                leg.write(Answer.problem(502, "What this leads to is not reachable.").to_bytes())
                leg.close()
                return
            try:
                with while_open or nullcontext():
                    peer.write(data)
                    await Pump(leg, peer).wait_ended()
            finally:
                leg.close()
                peer.close()

        self._tasks.spawn(f"hand over to {host}:{port}", pipe())


def marked(data: bytes) -> bytes:
    """A request that says of itself that it was handed on."""
    request_line, rest = data.split(b"\r\n", 1)
    return b"%b\r\n%b: 1\r\n%b" % (request_line, MARK.encode(), rest)
