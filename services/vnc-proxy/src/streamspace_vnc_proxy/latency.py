"""How long data waits for this relay: measured with a byte of our own, each second.

The byte goes through a socket pair and is read by the event loop like any viewer's
input, so it waits behind the same work. Timing real traffic would cost every piece
two clock readings.
"""

import asyncio
import contextlib
import socket
import time

from streamspace_vnc_proxy import metrics

INTERVAL = 1.0
"""Seconds between probes."""


async def probe(interval: float = INTERVAL) -> None:
    """Measure; for ever."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    with contextlib.closing(near), contextlib.closing(far):
        near.setblocking(False)
        far.setblocking(False)
        while True:
            arrived: asyncio.Future[float] = loop.create_future()

            def read(arrived: asyncio.Future[float] = arrived) -> None:
                far.recv(1)
                arrived.set_result(time.perf_counter())

            loop.add_reader(far, read)
            try:
                sent = time.perf_counter()
                near.send(b"?")
                metrics.ADDED_LATENCY.observe(await arrived - sent)
            finally:
                loop.remove_reader(far)
            await asyncio.sleep(interval)
