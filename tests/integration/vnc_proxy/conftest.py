"""A real vnc-proxy on a real NATS, between a scripted control plane and scripted agents.

What is scripted: who may see what (`control`), and what an agent does when it is asked
for a tunnel (`agent`). What is real: the bus, every socket, and in the desktop tests
the RFB server.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.vnc_proxy.parties import (
    CLUSTER,
    Desktop,
    Proxy,
    ProxyFactory,
    ScriptedAgent,
    ScriptedControl,
)

from streamspace_common.bus import Bus
from streamspace_common.contracts.requests import AgentMethods, SessionMethods
from streamspace_common.runtime.supervisor import Supervisor
from streamspace_common.testing.nats import NatsServer
from streamspace_embedded.ports import free_port
from streamspace_vnc_proxy.main import start
from streamspace_vnc_proxy.settings import VncProxySettings


@pytest_asyncio.fixture
async def control(bus: Bus) -> AsyncIterator[ScriptedControl]:
    scripted = ScriptedControl()
    served = await bus.serve(
        "session",
        {
            SessionMethods.REDEEM_TICKET: scripted.redeem,
            SessionMethods.CHECK_ADMISSION: scripted.check,
        },
    )
    yield scripted
    await served.stop()


@pytest_asyncio.fixture
async def agent(bus: Bus) -> AsyncIterator[ScriptedAgent]:
    scripted = ScriptedAgent()
    served = await bus.serve_cluster(CLUSTER, {AgentMethods.OPEN_TUNNEL: scripted.open})
    yield scripted
    await scripted.stop()
    await served.stop()


@pytest_asyncio.fixture
async def start_proxy(
    bus: Bus, nats_server: NatsServer, control: ScriptedControl
) -> AsyncIterator[ProxyFactory]:
    """Starts proxies with the settings given; they end with the test."""
    started: list[tuple[Supervisor, asyncio.Task[None]]] = []

    async def factory(**settings: Any) -> Proxy:
        # The tunnel address must name the port, so the port is taken beforehand.
        port = settings.pop("listen_port", None) or free_port()
        defaults: dict[str, Any] = {
            "nats_url": nats_server.url,
            "listen_port": port,
            "tunnel_url": f"ws://127.0.0.1:{port}",
            "open_timeout": 5.0,
        }
        supervisor = Supervisor("vnc-proxy", drain_timeout=10)
        running = await start(VncProxySettings(**(defaults | settings)), supervisor)
        started.append((supervisor, asyncio.create_task(supervisor.run())))
        return Proxy(running, supervisor, control)

    yield factory
    for supervisor, task in started:
        supervisor.stop()
        await task


@pytest_asyncio.fixture
async def proxy(start_proxy: ProxyFactory, agent: ScriptedAgent) -> Proxy:
    return await start_proxy()


@pytest_asyncio.fixture
async def desktop(agent: ScriptedAgent) -> AsyncIterator[Desktop]:
    made = Desktop()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    agent.target = ("127.0.0.1", made.port)
    yield made
    made.flood = False
    made.hang_up()
    server.close()
    await server.wait_closed()


@pytest.fixture
def xvnc(tmp_path: Path) -> Iterator[Path]:
    """A real desktop: the socket of an Xvnc of this test's own."""
    program = shutil.which("Xvnc")
    if program is None:
        pytest.skip("Xvnc is not installed (Debian: tigervnc-standalone-server)")
    socket = tmp_path / "rfb.sock"
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [
            program,
            "-displayfd",
            str(writing),
            "-geometry",
            "320x200",
            "-depth",
            "24",
            "-SecurityTypes",
            "None",
            "-rfbport",
            "-1",
            "-rfbunixpath",
            str(socket),
            "-rfbunixmode",
            "0600",
            "-nolisten",
            "tcp",
            "-AlwaysShared",
            "-AcceptSetDesktopSize",
        ],
        pass_fds=(writing,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as ready:
        assert ready.readline().strip().isdigit(), "Xvnc did not start"
    yield socket
    process.terminate()
    process.wait(timeout=10)
