"""TLS to the bus, where its address asks for it.

`tls://` means encrypted or not at all: a client that also took a plain connection would
hand its token to whoever listens in between.
"""

import asyncio
import ssl
from pathlib import Path
from typing import Any

from nats.aio.transport import TcpTransport

from streamspace_common.runtime.supervisor import FatalError

_SCHEME = "tls://"
_FAREWELL = 2.0
"""Seconds for a connection's orderly end; one to a server that hangs has none."""


def encryption(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """How to encrypt connections to `url`; None for plain ones.

    Args:
        url: one address, or several with commas between.
        ca_file: certificate authorities (PEM) trusted besides the system's own.

    Raises:
        FatalError: some addresses are `tls://` and others are not, or the file holds no
            certificate that can be read.
    """
    encrypted = [part.strip().startswith(_SCHEME) for part in url.split(",")]
    if not any(encrypted):
        return None
    if not all(encrypted):
        raise FatalError(f"NATS addresses are either all {_SCHEME} or none; these are mixed.")
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            reason = error.strerror or "it holds no certificate"
            raise FatalError(
                f"The certificate authorities for NATS cannot be read from {ca_file}: {reason}."
            ) from error
    return context


class EncryptedTransport(TcpTransport):
    """The vendor's connection, which comes back after a failed handshake.

    The vendor's own waits for ever for the end of a connection whose handshake failed, and
    so never tries again: a server that is busy, or a certificate that is not there yet,
    would end a service's connection for good.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __bool__(self) -> bool:
        # The client takes its own, when this one seems unused.
        return True

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
