"""An HTTP server inside a service's own event loop.

The service's supervisor owns signals and the order of the end, so uvicorn gets
neither; it serves from a socket bound here, which makes a taken port one sentence.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from streamspace_common.runtime.supervisor import FatalError

_BACKLOG: Final = 2048


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class Server:
    """A running server; made by `serve`."""

    def __init__(self, inner: _Uvicorn, listening: socket.socket, task: asyncio.Task[None]) -> None:
        self._inner = inner
        self._task = task
        self.host, self.port = listening.getsockname()[:2]

    async def wait(self) -> None:
        """Until it has stopped."""
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Take no more requests, let running ones end within the grace period, then close."""
        self._inner.should_exit = True
        await self.wait()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        FatalError: the port is taken, or may not be used.
    """
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=_BACKLOG,
        )
    except OSError as error:
        raise FatalError(f"Cannot listen on {host}:{port}: {error.strerror}.") from error


async def serve(app: ASGIApp, host: str, port: int, *, grace: int = 10) -> Server:
    """Serve `app` until `Server.stop`; returns when it takes requests.

    Args:
        app: what answers.
        host: address to listen on.
        port: TCP port; 0 for a free one, which `Server.port` then tells.
        grace: seconds running requests get when it stops.

    Raises:
        FatalError: the port is taken, or the app's own start failed.
    """
    listening = listen(host, port)
    inner = _Uvicorn(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            # Whom to believe about a caller's address is the app's to decide.
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=grace,
            timeout_keep_alive=75,
            ws="none",
        )
    )
    task = asyncio.create_task(inner.serve(sockets=[listening]), name=f"http:{host}:{port}")
    up = asyncio.create_task(inner.up.wait())
    try:
        await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        up.cancel()
    if not inner.started:
        listening.close()
        await asyncio.wait({task}, timeout=grace)
        raise FatalError("The HTTP server did not start; the line before this one tells why.")
    return Server(inner, listening, task)
