"""A connection to a server over TCP or TLS, as the vendor's client drives it."""

import asyncio
from typing import Any

from nats.aio.transport import TcpTransport

_FAREWELL = 2.0
"""Seconds for a connection's orderly end; one to a server that hangs has none."""


class SteadyTransport(TcpTransport):
    """The vendor's connection, which comes back after a failed handshake.

    The vendor's own waits for ever for the end of a connection whose TLS handshake failed,
    and so never tries again: a server that is busy, or a certificate that is not there yet,
    would end a service's connection for good. And it forgets to close one that was refused
    when it connects anew.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __bool__(self) -> bool:
        # The client takes its own, when this one seems unused.
        return True

    async def connect(self, *arguments: Any, **named: Any) -> None:
        if self._io_writer is not None:
            self._io_writer.transport.abort()
            self._io_writer = None
        await super().connect(*arguments, **named)

    async def connect_tls(self, *arguments: Any, **named: Any) -> None:
        try:
            await super().connect_tls(*arguments, **named)
        except BaseException:
            if self._bare_io_writer is not None:
                self._bare_io_writer.transport.abort()
            self._io_writer = None
            raise

    async def wait_closed(self) -> None:
        writer = self._io_writer
        if writer is None:
            return
        try:
            async with asyncio.timeout(_FAREWELL):
                await writer.wait_closed()
        except TimeoutError:
            writer.transport.abort()

    def writelines(self, payload: Any) -> None:
        # What is pending when the last try has failed goes nowhere.
        if self._io_writer is not None:
            self._io_writer.writelines(payload)

    async def drain(self) -> None:
        if self._io_writer is not None:
            await self._io_writer.drain()
