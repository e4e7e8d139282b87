"""Streams from a viewer's upgrade to their end, and every way of not opening one."""

import asyncio
import base64
import json
import urllib.error
import urllib.request
from dataclasses import dataclass

import pytest
import websockets
from tests.integration.vnc_proxy.parties import (
    HELLO,
    KEY,
    UPDATE,
    Desktop,
    Proxy,
    ProxyFactory,
    ScriptedAgent,
    closing,
    offer,
    read,
)

from streamspace_common.bus import Bus
from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.clusters import OpenTunnel
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.sessions import SessionState, ViewerRole
from streamspace_common.relay.websocket import HandshakeRefusedError, connect_websocket
from streamspace_common.runtime import tracing
from streamspace_common.runtime.tracing import Span, new_traceparent, trace_id_of
from streamspace_common.testing.waiting import eventually


@dataclass
class Silent:
    """A span nobody keeps."""

    traceparent: str

    def rename(self, name: str) -> None: ...

    def set(self, **attributes: tracing.Value) -> None: ...

    def fail(self, reason: str) -> None: ...

    def end(self, at: int | None = None) -> None: ...


UNUSABLE_UPGRADE = (
    b"GET /streams/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Version: 8\r\n\r\n"
)


async def test_a_viewer_and_a_session_talk_through_the_relay(
    proxy: Proxy, desktop: Desktop
) -> None:
    async with proxy.view() as viewer:
        assert viewer.subprotocol == "binary"
        assert await read(viewer, 12) == b"RFB 003.008\n"
        await viewer.send(HELLO + KEY)
        assert await read(viewer, len(HELLO + KEY)) == HELLO + KEY
        big = b"\x06\0\0\0" + (900_000).to_bytes(4) + bytes(900_000)
        await viewer.send(big)
        assert await read(viewer, len(big)) == big
        assert len(proxy.running.relay.streams) == 1
    await eventually(lambda: len(proxy.running.relay.streams) == 0 and desktop.closed == 1)


async def test_opening_a_stream_belongs_to_the_request_that_asked_for_its_ticket(
    proxy: Proxy, desktop: Desktop, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, str | None]] = []

    class Recorder:
        def start(
            self, name: str, _kind: object, *, parent: str | None, trace_id: str | None, **_: object
        ) -> Span:
            begun.append((name, trace_id))
            return Silent(new_traceparent(trace_id))

    asked = new_traceparent()
    proxy.control.traceparent = asked
    monkeypatch.setattr(tracing._switch, "recorder", Recorder())
    async with proxy.view() as viewer:
        await read(viewer, 12)
    mine = [name for name, trace in begun if trace == trace_id_of(asked)]
    assert mine[:3] == ["open stream", "redeem ticket", "call rpc.open_tunnel"]
    assert agent.traces == [trace_id_of(asked)]


async def test_fragments_and_pings_pass(proxy: Proxy, desktop: Desktop) -> None:
    async with proxy.view() as viewer:
        await read(viewer, 12)
        await viewer.send([HELLO[:5], HELLO[5:9], HELLO[9:] + KEY])
        assert await read(viewer, len(HELLO + KEY)) == HELLO + KEY
        await (await viewer.ping())


async def test_a_ticket_works_once(proxy: Proxy, desktop: Desktop) -> None:
    ticket = proxy.control.ticket()
    async with proxy.view(ticket) as viewer:
        await read(viewer, 12)
        async with proxy.view(ticket) as second:
            assert (await closing(second))[0] == 4401


async def test_a_forged_ticket_and_none_are_refused(proxy: Proxy, desktop: Desktop) -> None:
    async with proxy.view("forged-0123456789abcdef") as viewer:
        assert await closing(viewer) == (4401, "The ticket is unknown or was used.")
    async with websockets.connect(
        f"{proxy.url}/streams/ada-desktop-0badcafe", subprotocols=offer()
    ) as viewer:
        assert (await closing(viewer))[0] == 4401


async def test_a_ticket_is_for_its_session_only(proxy: Proxy, desktop: Desktop) -> None:
    async with proxy.view(session="eve-desktop-0badcafe") as viewer:
        assert (await closing(viewer))[0] == 4401
    async with proxy.view(session="Not%20a..session") as viewer:
        assert (await closing(viewer))[0] == 4404


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        (None, True),
        ("http://127.0.0.1:8080", True),
        ("https://127.0.0.1", True),
        ("http://evil.example", False),
        ("null", False),
        ("http://127.0.0.1.evil.example", False),
    ],
)
async def test_pages_of_other_hosts_may_not_open_streams(
    proxy: Proxy, desktop: Desktop, origin: str | None, welcome: bool
) -> None:
    async with proxy.view(origin=origin) as viewer:
        if welcome:
            assert await read(viewer, 12) == b"RFB 003.008\n"
        else:
            assert (await closing(viewer))[0] == 4403
    assert len(proxy.control.tickets) == (0 if welcome else 1)


async def test_listed_origins_replace_the_rule_of_the_same_host(
    start_proxy: ProxyFactory, agent: ScriptedAgent, desktop: Desktop
) -> None:
    proxy = await start_proxy(allowed_origins="https://apps.example.org, http://other.example")
    async with proxy.view(origin="https://apps.example.org") as viewer:
        assert await read(viewer, 12) == b"RFB 003.008\n"
    async with proxy.view(origin="http://127.0.0.1:8080") as viewer:
        assert (await closing(viewer))[0] == 4403


async def test_a_session_that_does_not_run_is_said_so(proxy: Proxy, desktop: Desktop) -> None:
    proxy.control.state = SessionState.HIBERNATED
    async with proxy.view() as viewer:
        assert await closing(viewer) == (4409, "The session is hibernated.")


async def test_a_web_session_is_not_streamed_as_vnc(proxy: Proxy, desktop: Desktop) -> None:
    proxy.control.protocol = Protocol.HTTP
    async with proxy.view() as viewer:
        assert (await closing(viewer))[0] == 4409


async def test_a_dead_desktop_is_said_so(proxy: Proxy, agent: ScriptedAgent) -> None:
    agent.target = ("127.0.0.1", 1)
    async with proxy.view() as viewer:
        assert await closing(viewer) == (4502, "The desktop is not there.")
    assert len(proxy.running.relay.tunnels) == 0


async def test_no_agent_is_said_so(start_proxy: ProxyFactory) -> None:
    proxy = await start_proxy()
    async with proxy.view() as viewer:
        code, reason = await closing(viewer)
    assert code == 4502
    assert "does not answer" in reason


async def test_an_agent_that_never_dials_back_is_not_waited_for(
    start_proxy: ProxyFactory, agent: ScriptedAgent
) -> None:
    async def say_yes_and_do_nothing(_request: OpenTunnel) -> None:
        pass

    agent.on_open = say_yes_and_do_nothing
    proxy = await start_proxy(open_timeout=0.3)
    async with proxy.view() as viewer:
        assert (await closing(viewer))[0] == 4408
    assert len(proxy.running.relay.tunnels) == 0


async def test_a_viewer_that_leaves_early_ends_the_opening(
    proxy: Proxy, agent: ScriptedAgent
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    refused: list[int | None] = []

    async def late(request: OpenTunnel) -> None:
        asked.set()
        await go_on.wait()
        with pytest.raises(HandshakeRefusedError) as caught:
            await agent.dial(request)
        refused.append(caught.value.status)
        raise ProblemError.of(Code.SESSION_UNREACHABLE, "too late")

    agent.on_open = late
    async with proxy.view():
        await asked.wait()
    relay = proxy.running.relay
    await eventually(lambda: len(relay.tunnels) == 0 and len(relay.streams) == 0)
    go_on.set()
    await eventually(lambda: refused == [404])


async def test_a_tunnel_needs_its_secret_and_works_once(
    proxy: Proxy, agent: ScriptedAgent, desktop: Desktop
) -> None:
    async def check(request: OpenTunnel) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": request.secret}):
            with pytest.raises(HandshakeRefusedError) as caught:
                await connect_websocket(request.dial_url, headers)
            assert caught.value.status == 401
        await agent.connect(request)
        with pytest.raises(HandshakeRefusedError) as caught:
            await agent.dial(request)
        assert caught.value.status == 404

    agent.on_open = check
    async with proxy.view() as viewer:
        assert await read(viewer, 12) == b"RFB 003.008\n"


async def test_a_session_has_so_many_viewers_and_no_more(
    start_proxy: ProxyFactory, agent: ScriptedAgent, desktop: Desktop
) -> None:
    proxy = await start_proxy(max_viewers_per_session=2)
    async with proxy.view() as one, proxy.view() as two, proxy.view() as three:
        await read(one, 12)
        await read(two, 12)
        assert (await closing(three))[0] == 1013
        await one.close()
        await eventually(lambda: len(proxy.running.relay.streams) == 1)
        async with proxy.view() as four:
            await read(four, 12)


async def test_one_address_may_not_hammer(
    start_proxy: ProxyFactory, agent: ScriptedAgent, desktop: Desktop
) -> None:
    proxy = await start_proxy(upgrades_per_minute=50)
    codes = []
    for _ in range(7):
        async with proxy.view("forged-0123456789abcdef") as viewer:
            codes.append((await closing(viewer))[0])
    assert codes == [4401] * 5 + [1013] * 2


async def test_a_message_of_another_protocol_ends_the_stream(
    proxy: Proxy, desktop: Desktop
) -> None:
    async with proxy.view() as viewer:
        await read(viewer, 12)
        await viewer.send(HELLO + bytes([77]))
        code, reason = await closing(viewer)
    assert code == 1008
    assert "77" in reason
    assert bytes(desktop.heard) == HELLO


async def test_text_is_not_carried(proxy: Proxy, desktop: Desktop) -> None:
    async with proxy.view() as viewer:
        await read(viewer, 12)
        await viewer.send("hello")
        assert (await closing(viewer))[0] == 1003


async def test_a_frame_beyond_the_limit_ends_the_stream(proxy: Proxy, desktop: Desktop) -> None:
    async with proxy.view() as viewer:
        await read(viewer, 12)
        await viewer.send(bytes(1024 * 1024 + 1))
        assert (await closing(viewer))[0] == 1009


async def test_a_view_viewer_sees_and_touches_nothing(proxy: Proxy, desktop: Desktop) -> None:
    async with proxy.view(role=ViewerRole.VIEW) as viewer:
        await read(viewer, 12)
        await viewer.send(HELLO + KEY + UPDATE + KEY)
        await viewer.send(bytes([5, 1, 0, 1, 0, 1]) + UPDATE)
        assert await read(viewer, len(HELLO) + 2 * len(UPDATE)) == HELLO + UPDATE + UPDATE
    assert bytes(desktop.heard) == HELLO + UPDATE + UPDATE


async def test_when_the_desktop_hangs_up_the_viewer_learns_why(
    proxy: Proxy, desktop: Desktop
) -> None:
    async with proxy.view() as viewer:
        await read(viewer, 12)
        desktop.hang_up()
        assert await closing(viewer) == (4502, "The connection to the session was lost.")
    proxy.control.state = SessionState.TERMINATING
    proxy.control.state = SessionState.RUNNING
    async with proxy.view() as viewer:
        await read(viewer, 12)
        proxy.control.state = SessionState.TERMINATED
        desktop.hang_up()
        assert await closing(viewer) == (4410, "The session was stopped.")


async def test_what_is_no_stream_gets_a_small_answer(proxy: Proxy) -> None:
    http = proxy.url.replace("ws://", "http://")

    def ask(path: str, data: bytes | None = None) -> tuple[int, dict]:
        try:
            urllib.request.urlopen(http + path, data=data, timeout=5)
        except urllib.error.HTTPError as error:
            assert error.headers["Content-Type"] == "application/problem+json"
            return error.code, json.load(error)
        raise AssertionError("not refused")

    for path, data, status in (("/", None, 404), ("/", b"x" * 10, 404), ("/streams/x", None, 426)):
        code, problem = await asyncio.to_thread(ask, path, data)
        assert (code, problem["status"]) == (status, status)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000, 431),
        (UNUSABLE_UPGRADE, 426),
    ],
)
async def test_malformed_requests_are_answered_and_closed(
    proxy: Proxy, head: bytes, status: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.running.port)
    writer.write(head)
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    writer.close()


async def test_firefox_names_two_connection_options(proxy: Proxy, desktop: Desktop) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.running.port)
    key = base64.b64encode(bytes(16))
    writer.write(
        b"GET /streams/ada-desktop-0badcafe HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        + key
        + b"\r\nSec-WebSocket-Protocol: binary, streamspace.ticket."
        + proxy.control.ticket().encode()
        + b"\r\n\r\n"
    )
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101")
        assert await reader.readexactly(14) == b"\x82\x0cRFB 003.008\n"
    writer.close()


async def test_probes_tell_readiness(proxy: Proxy) -> None:
    def get(path: str) -> str:
        with urllib.request.urlopen(proxy.health + path, timeout=5) as answer:
            return answer.read().decode()

    assert json.loads(await asyncio.to_thread(get, "/readyz"))["ready"] is True
    assert "streamspace_proxy_streams" in await asyncio.to_thread(get, "/metrics")


async def test_secrets_do_not_reach_the_log(
    proxy: Proxy,
    agent: ScriptedAgent,
    desktop: Desktop,
    capfd: pytest.CaptureFixture[str],
    bus: Bus,
) -> None:
    ticket = proxy.control.ticket()
    async with proxy.view(ticket) as viewer:
        await read(viewer, 12)
    async with proxy.view(ticket) as viewer:
        await closing(viewer)
    out, err = capfd.readouterr()
    for secret in (ticket, agent.requests[0].secret):
        assert secret not in out + err
