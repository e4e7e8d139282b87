"""What an operator's credentials allow, on a real server: looking, and nothing else."""

import pytest

from streamspace_common.bus import Bus, BusUnavailableError, PermissionDeniedError, Streams

HEADERS = {"Nats-Msg-Id": "m", "ce-type": "session.created.v1"}

pytestmark = pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning")


async def test_ops_see_streams_messages_and_consumers(session: Bus, ops: Streams) -> None:
    await session.publish("evt.core.session.one.created", b"{}", HEADERS)
    assert (await ops.state("EVENTS")).messages == 1
    assert "session-agents" in await ops.consumers("EVENTS")
    message = await ops.first_from("EVENTS", ">", 1)
    assert message is not None
    assert message.subject == "evt.core.session.one.created"


@pytest.mark.parametrize("role", ["ops", "restore"])
@pytest.mark.parametrize(
    "subject",
    [
        "CONSUMER.CREATE.EVENTS.mine",
        "CONSUMER.DURABLE.CREATE.COMMANDS.agent-lab",
        "CONSUMER.DELETE.EVENTS.session-agents",
        "CONSUMER.MSG.NEXT.EVENTS.session-agents",
        "STREAM.PURGE.COMMANDS",
        "STREAM.UPDATE.EVENTS",
        "STREAM.CREATE.MINE",
        "STREAM.MSG.DELETE.COMMANDS",
    ],
)
async def test_neither_may_change_what_others_rely_on(session, connect, role, subject) -> None:
    bus = await connect(role)
    with pytest.raises((PermissionDeniedError, BusUnavailableError)):
        await bus.link.api(subject, {}, timeout=2)
    assert "session-agents" in await Streams(session).consumers("EVENTS")


@pytest.mark.parametrize("role", ["ops", "restore"])
@pytest.mark.parametrize(
    "subject", ["cmd.lab.one", "evt.core.session.one.created", "svc.auth.login", "dlq.lab.one"]
)
async def test_neither_may_publish_or_ask(session, connect, role, subject) -> None:
    bus = await connect(role)
    with pytest.raises(BusUnavailableError):
        await bus.publish(subject, b"{}", HEADERS, timeout=2)


async def test_ops_may_not_remove_a_stream_and_restore_may(session: Bus, ops: Streams, connect):
    with pytest.raises(PermissionDeniedError):
        await ops.delete("DLQ")
    await Streams(await connect("restore")).delete("DLQ")
    assert (await ops.state("EVENTS")).name == "EVENTS"
