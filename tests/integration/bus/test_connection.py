"""One connection's life: late servers, hanging servers, leaving."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from streamspace_common.bus import Bus, BusUnavailableError, provision
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually


async def test_connecting_waits_for_a_server_that_starts_later(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    with structlog.testing.capture_logs() as logs:
        connecting = asyncio.create_task(Bus.connect(server.url, name="early"))
        await eventually(lambda: any(x["event"] == "bus.waiting_for_server" for x in logs))
        server.start()
        bus = await connecting
    assert [x["event"] for x in logs].count("bus.waiting_for_server") == 1
    assert bus.connected
    await bus.close()
    server.stop()


async def test_connecting_can_be_given_up(tmp_path: Path) -> None:
    connecting = asyncio.create_task(Bus.connect(NatsServer(tmp_path).url, name="never"))
    await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting


async def test_who_waits_no_longer_is_told_what_went_wrong(tmp_path: Path) -> None:
    with pytest.raises(BusUnavailableError, match=r"(?i)connect"):
        await Bus.connect(NatsServer(tmp_path).url, name="never", patience=0.5)


async def test_a_hanging_server_is_noticed_and_forgiven(nats_server: NatsServer) -> None:
    bus = await Bus.connect(nats_server.url, name="test", ping_interval=1)
    nats_server.pause()
    try:
        await eventually(lambda: not bus.connected, timeout=15)
    finally:
        nats_server.resume()
    await eventually(lambda: bus.connected)
    await provision(bus)
    assert await bus.last_sequence(EVENTS.name) == 0
    await bus.close()


async def test_a_restart_is_told_once_and_survived(bus: Bus, nats_server: NatsServer) -> None:
    closed: list[str] = []
    watched = await Bus.connect(nats_server.url, name="w", on_closed=lambda: closed.append("w"))
    with structlog.testing.capture_logs() as logs:
        nats_server.kill()
        await eventually(lambda: not watched.connected)
        nats_server.start()
        await eventually(lambda: watched.connected and bus.connected)
    events = [x["event"] for x in logs if x.get("client") == "w"]
    assert events.count("bus.disconnected") == 1
    assert closed == []
    await watched.close()
    assert closed == []


async def test_leaving_on_purpose_is_no_incident(nats_server: NatsServer) -> None:
    closed: list[str] = []
    for leave in ("close", "drain"):
        bus = await Bus.connect(nats_server.url, name="x", on_closed=lambda: closed.append("x"))
        with structlog.testing.capture_logs() as logs:
            await getattr(bus, leave)()
            await bus.close()
            await bus.drain()
        assert [x for x in logs if x["log_level"] in {"warning", "error"}] == []
        assert not bus.connected
        with pytest.raises(BusUnavailableError):
            await bus.publish("evt.lab.session.s.kind", b"", {})
    assert closed == []


async def test_a_drain_without_a_server_ends_too(bus: Bus, nats_server: NatsServer) -> None:
    nats_server.kill()
    await eventually(lambda: not bus.connected)
    await bus.drain()
    assert not bus.connected


async def test_several_addresses_of_one_cluster_may_be_given(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    absent = NatsServer(tmp_path / "absent").url
    with structlog.testing.capture_logs():
        bus = await Bus.connect(f"{absent}, {nats_server.url}", name="test")
    assert bus.connected
    await bus.close()


async def test_closing_ends_an_attempt_to_reconnect_that_does_not_hear_of_it_at_once(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the server answers in the instant in which the attempt is cancelled."""
    bus = await Bus.connect(nats_server.url, name="test")
    attempts: list[asyncio.Task[None] | None] = []
    given_up = asyncio.Event()

    async def answered_just_then() -> None:
        attempts.append(asyncio.current_task())
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        given_up.set()

    monkeypatch.setattr(bus.link.client, "_process_connect_init", answered_just_then)
    nats_server.restart(kill=True)
    await eventually(lambda: attempts)
    await bus.close()
    assert given_up.is_set()
    assert attempts[0] is not None
    assert attempts[0].done()
    assert not bus.connected


async def test_closing_amid_an_outage_leaves_nothing_behind(nats_server: NatsServer) -> None:
    """What was to be sent has no way any more; the tasks and the socket end all the same."""
    bus = await Bus.connect(nats_server.url, name="test")
    nats_server.kill()
    await eventually(lambda: not bus.connected)
    await bus.link.client.publish("lost.words", b"nobody hears")
    await bus.close()
    nats_server.start()
