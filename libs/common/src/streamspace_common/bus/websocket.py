"""NATS inside a WebSocket, by way of a forward proxy where one is needed.

For agents whose network lets nothing out but HTTPS. The vendor has a transport like this,
which knows no proxies and is no use after a failed try.
"""

import asyncio
import ssl
from typing import Any
from urllib.parse import ParseResult

from nats.aio.transport import Transport

from streamspace_common.runtime.proxies import Proxies
from streamspace_common.runtime.supervisor import FatalError

try:
    import aiohttp
except ImportError:  # An extra: only agents come this way.
    aiohttp = None  # type: ignore[assignment]

_FAREWELL = 2.0
"""Seconds for a connection's orderly end; one to a server that hangs has none."""


class WebSocketTransport(Transport):
    """One connection at a time, made anew at each reconnect.

    Args:
        proxies: which way leads to the server.

    Raises:
        FatalError: this program was installed without WebSockets.
    """

    def __init__(self, proxies: Proxies) -> None:
        if aiohttp is None:
            raise FatalError(
                "NATS addresses of ws:// and wss:// need the package aiohttp, which is not "
                "installed here; use tls://."
            )
        self._proxies = proxies
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._pending: list[bytes] = []

    def __bool__(self) -> bool:
        # The client takes the vendor's own, when this one seems unused.
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        await self._open(uri.geturl(), None, connect_timeout)

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        # The server may ask for TLS within: it is there already, or ends at an ingress.
        if self._socket is None or self._socket.closed:
            address = uri if isinstance(uri, str) else uri.geturl()
            await self._open(address, ssl_context, connect_timeout)

    async def _open(self, url: str, context: ssl.SSLContext | None, timeout: float) -> None:
        await self.wait_closed()
        self._pending.clear()
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None), trust_env=False
        )
        try:
            async with asyncio.timeout(timeout):
                self._socket = await self._session.ws_connect(
                    url,
                    proxy=self._proxies.way_to(url),
                    ssl=context if context is not None else True,
                    max_msg_size=0,
                    autoping=True,
                    compress=0,
                )
        except (aiohttp.ClientError, ValueError) as error:
            await self.wait_closed()
            raise ConnectionError(f"{_without_secrets(url)}: {error}") from error
        except BaseException:
            await self.wait_closed()
            raise

    def write(self, payload: bytes) -> None:
        self._pending.append(payload)

    def writelines(self, payload: list[bytes]) -> None:
        self._pending.extend(payload)

    async def drain(self) -> None:
        if not self._pending or self._socket is None:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        # Closed meanwhile: whoever reads notices, and reconnects.
        await self._socket.send_bytes(data)

    async def read(self, buffer_size: int) -> bytes:
        return await self.readline()

    async def readline(self) -> bytes:
        if self._socket is None:
            return b""
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type is aiohttp.WSMsgType.ERROR:
            raise ConnectionError(f"the WebSocket broke: {message.data}")
        return b""

    def close(self) -> None:
        """Nothing yet: `wait_closed` does it."""

    async def wait_closed(self) -> None:
        opened, self._socket = self._socket, None
        session, self._session = self._session, None
        try:
            async with asyncio.timeout(_FAREWELL):
                if opened is not None:
                    await opened.close()
        except (TimeoutError, OSError, aiohttp.ClientError):
            pass
        finally:
            if session is not None:
                await session.close()

    def at_eof(self) -> bool:
        return self._socket is None or self._socket.closed


def _without_secrets(url: str) -> Any:
    return url.partition("://")[2].rpartition("@")[2]
