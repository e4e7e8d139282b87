"""Publishing into streams and to whoever listens."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import structlog

from streamspace_common.bus import (
    ApiError,
    Bus,
    BusUnavailableError,
    CoreMessage,
    MessageTooLargeError,
    NobodyAnswersError,
    StartAt,
    WrongLastSequenceError,
)
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity, Heartbeat
from streamspace_common.contracts.events import CommandReceived, parse_event
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.contracts.subjects import command, heartbeat
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually

LAB, SESSION = ClusterId("lab"), SessionId("ada-desktop-01234567")


def event() -> CommandReceived:
    return CommandReceived(
        id=uuid4().hex,
        at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        cluster_id=LAB,
        instance="one",
        session_id=SESSION,
        generation=1,
    )


def beat(running: int = 0) -> Heartbeat:
    return Heartbeat(
        cluster_id=LAB,
        instance="one",
        runtime=RuntimeKind.NULL,
        version="1",
        sent_at=datetime.now(UTC),
        capacity=Capacity(max_sessions=1, cpu=1, memory=1),
        running_sessions=running,
    )


async def test_an_event_is_stored_with_its_cloudevents_attributes(bus: Bus) -> None:
    sent = event()
    stored = await bus.publish_event(sent, source="agent/lab")
    assert (stored.stream, stored.sequence, stored.duplicate) == (EVENTS.name, 1, False)
    tail = bus.tail(EVENTS.name, ["evt.lab.session.>"], start=StartAt.all())
    got = await anext(tail)
    await tail.aclose()
    assert got.subject == sent.subject
    assert parse_event(got.type, got.payload) == sent
    headers = dict(got.headers)
    trace = headers.pop("traceparent").split("-")
    assert [len(part) for part in trace] == [2, 32, 16, 2]
    assert headers == {
        "ce-specversion": "1.0",
        "ce-id": sent.id,
        "ce-type": "session.command-received.v1",
        "ce-source": "agent/lab",
        "ce-time": "2026-01-02T03:04:05Z",
        "ce-subject": SESSION,
        "content-type": "application/json",
        "Nats-Msg-Id": sent.id,
    }


async def test_the_same_event_twice_is_stored_once(bus: Bus) -> None:
    sent = event()
    first = await bus.publish_event(sent, source="agent/lab")
    again = await bus.publish_event(sent, source="agent/lab")
    assert (again.sequence, again.duplicate) == (first.sequence, True)
    assert await bus.last_sequence(EVENTS.name) == 1


async def test_a_stale_expectation_is_refused_with_what_was_found(bus: Bus) -> None:
    subject = command(LAB, SESSION)
    first = await bus.publish(subject, b"1", {}, expected_last_subject_sequence=0)
    second = await bus.publish(subject, b"2", {}, expected_last_subject_sequence=first.sequence)
    with pytest.raises(WrongLastSequenceError) as caught:
        await bus.publish(subject, b"stale", {}, expected_last_subject_sequence=first.sequence)
    assert (caught.value.expected, caught.value.actual) == (first.sequence, second.sequence)
    with pytest.raises(WrongLastSequenceError):
        await bus.publish(subject, b"stale", {}, expected_last_subject_sequence=0)


async def test_a_subject_of_no_stream_is_told_apart(bus: Bus) -> None:
    with pytest.raises(NobodyAnswersError, match="no stream takes nowhere"):
        await bus.publish("nowhere", b"", {})


async def test_what_is_too_large_is_told_apart(bus: Bus) -> None:
    with pytest.raises(MessageTooLargeError):
        await bus.publish(command(LAB, SESSION), b"x" * 100_000, {})
    with pytest.raises(MessageTooLargeError):
        await bus.publish(command(LAB, SESSION), b"x" * 2_000_000, {})


async def test_an_event_can_be_neither_deleted_nor_purged_nor_rolled_up(bus: Bus) -> None:
    await bus.publish_event(event(), source="agent/lab")
    with pytest.raises(ApiError):
        await bus.link.api(f"STREAM.PURGE.{EVENTS.name}")
    with pytest.raises(ApiError):
        await bus.link.api(f"STREAM.MSG.DELETE.{EVENTS.name}", {"seq": 1})
    with pytest.raises(ApiError):
        await bus.publish(event().subject, b"{}", {"Nats-Rollup": "all"})
    assert await bus.last_sequence(EVENTS.name) == 1


async def test_a_publish_waits_for_a_server_that_comes_back(
    bus: Bus, nats_server: NatsServer
) -> None:
    nats_server.kill()
    publishing = asyncio.create_task(bus.publish_event(event(), source="agent/lab", timeout=20))
    await eventually(lambda: not bus.connected)
    nats_server.start()
    assert (await publishing).sequence == 1


async def test_a_publish_gives_up_in_time_when_no_server_comes(
    bus: Bus, nats_server: NatsServer
) -> None:
    nats_server.kill()
    with pytest.raises(BusUnavailableError):
        await bus.publish_event(event(), source="agent/lab", timeout=0.2)
    with pytest.raises(BusUnavailableError):
        await bus.publish_core(heartbeat(LAB, "one"), beat())


async def test_what_was_acknowledged_survives_kill_9(bus: Bus, nats_server: NatsServer) -> None:
    acknowledged: set[str] = set()
    stop = False

    async def publish(worker: int) -> None:
        number = 0
        while not stop:
            number += 1
            id_ = f"{worker}-{number}"
            try:
                await bus.publish("evt.lab.session.s.kind", b"{}", {"Nats-Msg-Id": id_}, timeout=30)
            except BusUnavailableError:
                continue
            acknowledged.add(id_)

    workers = [asyncio.create_task(publish(n)) for n in range(8)]
    for goal in (100, 200, 300):
        await eventually(lambda: len(acknowledged) >= goal, timeout=30)  # noqa: B023
        nats_server.restart(kill=True)
    stop = True
    await asyncio.gather(*workers)
    stored: set[str] = set()
    async for message in bus.tail(EVENTS.name, ["evt.>"], start=StartAt.all()):
        stored.add(message.headers["Nats-Msg-Id"])
        if message.sequence == await bus.last_sequence(EVENTS.name):
            break
    assert acknowledged <= stored
    assert len(stored) == await bus.last_sequence(EVENTS.name)


async def test_core_messages_reach_who_listens_with_their_type(bus: Bus) -> None:
    heard: list[CoreMessage] = []

    async def hear(message: CoreMessage) -> None:
        heard.append(message)

    subscription = await bus.subscribe("hb.*.*", hear)
    await bus.publish_core(heartbeat(LAB, "one"), beat(running=3))
    await eventually(lambda: len(heard) == 1)
    assert heard[0].type == Heartbeat.TYPE
    assert Heartbeat.from_json(heard[0].payload).running_sessions == 3
    await subscription.stop()
    await bus.publish_core(heartbeat(LAB, "one"), beat())
    await bus.link.flush()
    assert len(heard) == 1


async def test_a_failing_handler_does_not_end_its_subscription(bus: Bus) -> None:
    heard: list[int] = []

    async def hear(message: CoreMessage) -> None:
        heard.append(len(heard))
        if len(heard) == 1:
            raise ValueError("odd")

    await bus.subscribe("hb.*.*", hear)
    with structlog.testing.capture_logs() as logs:
        await bus.publish_core(heartbeat(LAB, "one"), beat())
        await bus.publish_core(heartbeat(LAB, "one"), beat())
        await eventually(lambda: len(heard) == 2)
    assert any(line["event"] == "bus.message_handler_failed" for line in logs)


async def test_a_subscriber_that_falls_behind_loses_messages_with_a_warning(bus: Bus) -> None:
    release = asyncio.Event()
    heard: list[CoreMessage] = []

    async def hear(message: CoreMessage) -> None:
        await release.wait()
        heard.append(message)

    await bus.subscribe("hb.*.*", hear, pending_limit=4)
    with structlog.testing.capture_logs() as logs:
        for _ in range(20):
            await bus.publish_core(heartbeat(LAB, "one"), beat())
        await eventually(lambda: any(line["event"] == "bus.messages_dropped" for line in logs))
        release.set()
        await eventually(lambda: 4 <= len(heard) <= 6)
    assert bus.connected


async def test_a_subscription_survives_a_restart(bus: Bus, nats_server: NatsServer) -> None:
    heard: list[str] = []

    async def hear(message: CoreMessage) -> None:
        heard.append(message.subject)

    await bus.subscribe("hb.*.*", hear)
    nats_server.restart(kill=True)

    async def arrives() -> bool:
        try:
            await bus.publish_core(heartbeat(LAB, "one"), beat())
        except BusUnavailableError:
            return False
        return bool(heard)

    await eventually(arrives)
