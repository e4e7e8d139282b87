"""What happens to living streams: stalls, restarts, the end of their session, idle time."""

import asyncio
import contextlib
import os
import signal
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
import websockets
from tests.integration.vnc_proxy.parties import (
    HELLO,
    KEY,
    OWNER,
    SESSION,
    Desktop,
    Proxy,
    ProxyFactory,
    ScriptedAgent,
    ScriptedControl,
    closing,
    offer,
    read,
)

from streamspace_common.bus import Bus, StartAt
from streamspace_common.contracts.catalog import Protocol, ResourceAmounts
from streamspace_common.contracts.events import SessionActivity, SessionStateChanged
from streamspace_common.contracts.identity import system_actor
from streamspace_common.contracts.ids import TemplateId, new_message_id
from streamspace_common.contracts.sessions import (
    DesiredState,
    Owner,
    Reason,
    Session,
    SessionState,
    ViewerRole,
)
from streamspace_common.runtime.clock import SystemClock
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually
from streamspace_embedded.ports import free_port
from streamspace_vnc_proxy.streams import Stream

MIB = 1024 * 1024


def changed(to: SessionState, reason: Reason | None = None) -> SessionStateChanged:
    now = SystemClock().now()
    session = Session(
        id=SESSION,
        owner=Owner(user_id=OWNER, username="ada"),
        template_id=TemplateId("starter_desktop"),
        template_name="desktop",
        template_display_name="Desktop",
        template_digest="0",
        cluster_id="lab",
        state=to,
        desired=DesiredState.TERMINATED,
        generation=2,
        protocol=Protocol.VNC,
        resources=ResourceAmounts(),
        created_at=now,
        updated_at=now,
        version=2,
    )
    return SessionStateChanged(
        id=str(new_message_id()),
        at=now,
        actor=system_actor("session"),
        session_id=SESSION,
        owner_id=OWNER,
        from_state=SessionState.RUNNING,
        to_state=to,
        desired=DesiredState.TERMINATED,
        reason=reason,
        generation=2,
        session=session,
    )


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (SessionState.TERMINATING, Reason.USER, "The session was stopped."),
        (SessionState.TERMINATING, Reason.IDLE, "The session was stopped because nobody used it."),
        (SessionState.HIBERNATING, None, "The session was hibernated. Wake it to go on."),
        (SessionState.FAILED, Reason.DESKTOP_DIED, "The session failed."),
    ],
)
async def test_a_stream_ends_with_its_session(
    proxy: Proxy, desktop: Desktop, bus: Bus, state: SessionState, reason: Reason | None, words: str
) -> None:
    async with proxy.view() as owner, proxy.view(role=ViewerRole.VIEW) as guest:
        await read(owner, 12)
        await read(guest, 12)
        await bus.publish_event(changed(state, reason), source="test")
        assert await closing(owner) == (4410, words)
        assert await closing(guest) == (4410, words)
    await eventually(lambda: desktop.closed == 2)


async def test_an_agent_out_of_reach_cuts_nobody(proxy: Proxy, desktop: Desktop, bus: Bus) -> None:
    async with proxy.view() as viewer:
        await read(viewer, 12)
        await bus.publish_event(changed(SessionState.UNKNOWN), source="test")
        await bus.publish_event(changed(SessionState.RUNNING), source="test")
        await viewer.send(HELLO)
        assert await read(viewer, len(HELLO)) == HELLO


async def test_who_may_not_see_the_session_any_more_is_sent_away(
    start_proxy: ProxyFactory, agent: ScriptedAgent, desktop: Desktop
) -> None:
    proxy = await start_proxy(recheck_interval=0.2)
    async with proxy.view() as viewer:
        await read(viewer, 12)
        proxy.control.allowed = False
        assert await closing(viewer) == (4401, "Your access ended.")


async def test_streams_live_on_while_the_control_plane_is_dead(
    start_proxy: ProxyFactory, agent: ScriptedAgent, desktop: Desktop, nats_server: NatsServer
) -> None:
    proxy = await start_proxy(recheck_interval=0.1, activity_interval=0.1)
    async with proxy.view() as viewer:
        await read(viewer, 12)
        await viewer.send(HELLO)
        await read(viewer, len(HELLO))
        nats_server.kill()
        for _ in range(20):
            await viewer.send(KEY)
            assert await read(viewer, len(KEY)) == KEY
            await asyncio.sleep(0.02)
        async with proxy.view() as second:
            code, reason = await closing(second)
            assert code == 1013
            assert reason
        nats_server.start()
        await viewer.send(KEY)
        assert await read(viewer, len(KEY)) == KEY

        async def welcome() -> bool:
            async with proxy.view() as third:
                try:
                    return await read(third, 12) == b"RFB 003.008\n"
                except websockets.ConnectionClosed:
                    return False

        await eventually(welcome, timeout=20)


async def test_a_stalled_viewer_costs_little_and_nobody_else_waits(
    proxy: Proxy, desktop: Desktop
) -> None:
    desktop.flood = True
    process = psutil.Process()
    async with proxy.view(max_size=None, max_queue=1) as other:
        await read(other, 12)
        stalled_reader, stalled = await _raw_viewer(proxy)
        stalled.transport.pause_reading()  # type: ignore[attr-defined]
        before = process.memory_info().rss
        relay = proxy.running.relay

        def streams() -> list[Stream]:
            return [stream for stream in relay.streams if isinstance(stream, Stream)]

        def held_back() -> bool:
            return any(not s.tunnel.reading for s in streams() if s.tunnel is not None)

        await eventually(held_back)
        # The other viewer's stream goes on meanwhile.
        await read(other, 20 * MIB)
        assert any(s.viewer.unsent > 0 for s in streams())
        assert all(s.viewer.unsent < 8 * MIB for s in streams())
        assert process.memory_info().rss - before < 60 * MIB  # this process holds all parties
        stalled.close()
        desktop.flood = False
        desktop.hang_up()


async def _raw_viewer(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.running.port)
    writer.write(
        b"GET /streams/ada-desktop-0badcafe HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Protocol: binary, streamspace.ticket."
        + proxy.control.ticket().encode()
        + b"\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_viewer_gone_without_a_word_is_found(
    start_proxy: ProxyFactory, agent: ScriptedAgent, desktop: Desktop
) -> None:
    proxy = await start_proxy(ping_interval=0.2, pong_timeout=0.2)
    reader, writer = await _raw_viewer(proxy)  # it never answers a ping
    async with proxy.view() as alive:
        await read(alive, 12)
        await eventually(lambda: len(proxy.running.relay.streams) == 2)
        await eventually(lambda: len(proxy.running.relay.streams) == 1)
        await alive.send(HELLO)
        assert await read(alive, len(HELLO)) == HELLO
    writer.close()


async def test_activity_is_reported_and_the_last_leave_at_once(
    start_proxy: ProxyFactory, agent: ScriptedAgent, desktop: Desktop, bus: Bus
) -> None:
    proxy = await start_proxy(activity_interval=0.2)
    seen: list[SessionActivity] = []

    async def follow() -> None:
        filters = ["evt.core.session.*.activity"]
        async with contextlib.aclosing(bus.tail("EVENTS", filters, start=StartAt.all())) as tail:
            async for message in tail:
                seen.append(SessionActivity.from_json(message.payload))

    following = asyncio.create_task(follow())
    async with proxy.view() as viewer, proxy.view(role=ViewerRole.VIEW) as guest:
        await read(viewer, 12)
        await read(guest, 12)
        await guest.send(HELLO + KEY)  # a guest's typing is no activity
        await eventually(lambda: seen and seen[-1].viewers == 2)
        assert seen[-1].idle_seconds is None
        assert seen[-1].session_id == SESSION
        assert seen[-1].owner_id == OWNER
        await viewer.send(HELLO + KEY)
        await eventually(lambda: seen[-1].idle_seconds is not None)
    await eventually(lambda: seen[-1].viewers == 0)
    assert sum(each.bytes_from_viewers for each in seen) == 2 * len(HELLO + KEY)
    assert sum(each.bytes_to_viewers for each in seen) >= 24
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_dial_back_at_another_replica_finds_its_owner(
    start_proxy: ProxyFactory, agent: ScriptedAgent, desktop: Desktop
) -> None:
    ports = free_port(), free_port()
    one = await start_proxy(
        listen_port=ports[0],
        replica_address=f"127.0.0.1:{ports[0]}",
        peer_hosts=f"127.0.0.1:{ports[1]}",
        tunnel_url=f"ws://127.0.0.1:{ports[1]}",
    )
    two = await start_proxy(
        listen_port=ports[1],
        replica_address=f"127.0.0.1:{ports[1]}",
        peer_hosts=f"127.0.0.1:{ports[0]}",
    )
    async with one.view() as viewer:
        await read(viewer, 12)
        await viewer.send(HELLO + KEY)
        assert await read(viewer, len(HELLO + KEY)) == HELLO + KEY
        assert len(two.running.relay.hand_overs) == 1
    await eventually(lambda: desktop.closed == 1 and len(two.running.relay.hand_overs) == 0)


async def test_a_dial_back_is_piped_to_believed_peers_only(
    start_proxy: ProxyFactory, agent: ScriptedAgent, desktop: Desktop
) -> None:
    ports = free_port(), free_port()
    one = await start_proxy(
        listen_port=ports[0],
        replica_address=f"127.0.0.1:{ports[0]}",
        tunnel_url=f"ws://127.0.0.1:{ports[1]}",
    )
    await start_proxy(listen_port=ports[1])
    async with one.view() as viewer:
        code, _ = await closing(viewer)
    assert code in {4502, 1011}


async def test_a_restart_sends_viewers_away_to_reconnect(
    nats_server: NatsServer,
    control: ScriptedControl,
    agent: ScriptedAgent,
    desktop: Desktop,
    proxy: Proxy,
    tmp_path: Path,
) -> None:
    port, health = free_port(), free_port()
    environment = os.environ | {
        "STREAMSPACE_NATS_URL": nats_server.url,
        "STREAMSPACE_VNC_PROXY_LISTEN_PORT": str(port),
        "STREAMSPACE_VNC_PROXY_TUNNEL_URL": f"ws://127.0.0.1:{port}",
        "STREAMSPACE_VNC_PROXY_HEALTH_PORT": str(health),
    }

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{health}/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def view() -> websockets.connect:
        return websockets.connect(
            f"ws://127.0.0.1:{port}/streams/{SESSION}",
            subprotocols=offer(control.ticket()),
        )

    log = (tmp_path / "proxy.log").open("wb")

    async def run() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "streamspace_vnc_proxy.main", env=environment, stderr=log
        )
        await eventually(lambda: asyncio.to_thread(ready), timeout=30)
        return process

    process = await run()
    try:
        async with view() as viewer:
            await read(viewer, 12)
            process.send_signal(signal.SIGTERM)
            code, reason = await closing(viewer)
            assert code == 1012
            assert reason
        assert await asyncio.wait_for(process.wait(), 15) == 0
        process = await run()
        async with view() as viewer:
            assert await read(viewer, 12) == b"RFB 003.008\n"
    finally:
        process.terminate()
        await process.wait()
        log.close()
    text = (tmp_path / "proxy.log").read_text()
    assert "Traceback" not in text
    assert all(request.secret not in text for request in agent.requests)
