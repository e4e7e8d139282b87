"""The server's streams and durables become what the table says, and nothing is lost."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import structlog

from streamspace_common.bus import Bus, BusError, ProvisioningError, ensure_durable, provision
from streamspace_common.bus.provision import durable_config, ensure_stream, stream_config
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.streams import (
    COMMANDS,
    EVENTS,
    SESSION_EVENTS,
    STREAMS,
    Stream,
    agent_durable,
)
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually


async def config_of(bus: Bus, stream: str) -> dict[str, Any]:
    config: dict[str, Any] = (await bus.link.api(f"STREAM.INFO.{stream}"))["config"]
    return config


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
async def test_the_server_has_what_the_table_says(bus: Bus, stream: Stream) -> None:
    current = await config_of(bus, stream.name)
    for name, wanted in stream_config(stream).items():
        assert current.get(name, type(wanted)()) == wanted, name
    assert not current.get("allow_rollup_hdrs")
    assert not current.get("allow_msg_schedules")


async def test_a_durable_is_what_the_table_says(bus: Bus) -> None:
    await ensure_durable(bus, agent_durable(ClusterId("lab")))
    for durable in (SESSION_EVENTS, agent_durable(ClusterId("lab"))):
        info = await bus.link.api(f"CONSUMER.INFO.{durable.stream}.{durable.name}")
        for name, wanted in durable_config(durable).items():
            assert info["config"].get(name, type(wanted)()) == wanted, name


async def test_a_second_time_changes_nothing(bus: Bus) -> None:
    with structlog.testing.capture_logs() as logs:
        await provision(bus)
        await ensure_durable(bus, SESSION_EVENTS)
    assert logs == []


async def test_replicas_may_start_together(nats_server: NatsServer) -> None:
    replicas = [await Bus.connect(nats_server.url, name=f"session/{n}") for n in range(4)]
    await asyncio.gather(*(provision(replica) for replica in replicas))
    assert await config_of(replicas[0], COMMANDS.name)
    for replica in replicas:
        await replica.close()


async def test_a_changed_table_is_applied_and_keeps_the_messages(bus: Bus) -> None:
    await bus.publish("cmd.lab.s1", b"{}", {})
    changed = replace(COMMANDS, max_age=timedelta(days=3), description="Another one.")
    with structlog.testing.capture_logs() as logs:
        await ensure_stream(bus, changed)
    assert logs[0]["changes"] == ["description", "max_age"]
    current = await config_of(bus, COMMANDS.name)
    assert (current["description"], current["max_age"]) == ("Another one.", 3 * 86400 * 10**9)
    assert current["max_msgs_per_subject"] == 1
    assert await bus.last_sequence(COMMANDS.name) == 1


async def test_what_the_table_does_not_name_stays(bus: Bus) -> None:
    current = await config_of(bus, COMMANDS.name)
    await bus.link.api(
        f"STREAM.UPDATE.{COMMANDS.name}", {**current, "metadata": {"owner": "operations"}}
    )
    await ensure_stream(bus, replace(COMMANDS, max_age=timedelta(days=3)))
    assert (await config_of(bus, COMMANDS.name))["metadata"]["owner"] == "operations"


async def test_an_impossible_change_is_a_clear_error_and_nothing_is_lost(bus: Bus) -> None:
    await bus.publish("evt.lab.session.s1.kind", b"{}", {})
    with pytest.raises(ProvisioningError, match="stream EVENTS cannot be made as it should be"):
        await ensure_stream(bus, replace(EVENTS, immutable=False))
    assert await bus.last_sequence(EVENTS.name) == 1


async def test_a_durable_keeps_its_place_when_its_settings_change(bus: Bus) -> None:
    durable = agent_durable(ClusterId("lab"))
    await ensure_durable(bus, durable)
    await ensure_durable(bus, replace(durable, max_ack_pending=7, ack_wait=timedelta(seconds=60)))
    info = await bus.link.api(f"CONSUMER.INFO.{durable.stream}.{durable.name}")
    assert (info["config"]["max_ack_pending"], info["config"]["ack_wait"]) == (7, 60 * 10**9)


async def test_a_durable_may_gain_and_lose_filters(bus: Bus) -> None:
    fewer = replace(SESSION_EVENTS, filters=SESSION_EVENTS.filters[:1])
    for durable in (fewer, SESSION_EVENTS, fewer):
        await ensure_durable(bus, durable)
        info = await bus.link.api(f"CONSUMER.INFO.{durable.stream}.{durable.name}")
        config = info["config"]
        found = config.get("filter_subjects") or [config["filter_subject"]]
        assert tuple(found) == durable.filters


async def test_a_durable_of_no_stream_is_a_clear_error(bus: Bus) -> None:
    with pytest.raises(ProvisioningError, match="there is no stream NOWHERE"):
        await ensure_durable(bus, replace(SESSION_EVENTS, stream="NOWHERE"))


async def test_a_disk_that_is_too_small_is_a_clear_error(nats_server: NatsServer) -> None:
    bus = await Bus.connect(nats_server.url, name="test")
    with pytest.raises(ProvisioningError, match="stream HUGE"):
        await provision(bus, [replace(EVENTS, name="HUGE", max_bytes=1 << 50)], [])
    await bus.close()


async def restarted(server: NatsServer, bus: Bus) -> None:
    """Restart the server; returns when the bus has noticed and JetStream answers."""
    server.restart()

    async def answers() -> bool:
        with contextlib.suppress(BusError):
            return await bus.last_sequence(COMMANDS.name) >= 0
        return False

    await eventually(answers, timeout=20)


async def test_a_stream_compressed_by_an_earlier_version_goes_on_without_and_loses_nothing(
    nats_server: NatsServer, bus: Bus
) -> None:
    earlier = replace(COMMANDS, name="EARLIER", subjects=("earlier.*",))
    await bus.link.api("STREAM.CREATE.EARLIER", {**stream_config(earlier), "compression": "s2"})
    for number in range(200):
        await bus.publish(f"earlier.{number % 20}", b"a" * 4096, {})
    await restarted(nats_server, bus)
    await ensure_stream(bus, earlier)
    assert (await config_of(bus, "EARLIER"))["compression"] == "none"
    await bus.publish("earlier.20", b"b", {})
    await restarted(nats_server, bus)
    held = [await bus.message_at("EARLIER", sequence) for sequence in range(181, 202)]
    assert [message.subject for message in held if message] == [f"earlier.{n}" for n in range(21)]
