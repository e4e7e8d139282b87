"""A real server in operator mode: what each credential may do, and what it may not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
import structlog
from tests.support.secured import Secured

from streamspace_common.bus import (
    Advisory,
    Bus,
    BusUnavailableError,
    CredentialRefusedError,
    Delivery,
    Identity,
    NobodyAnswersError,
    PermissionDeniedError,
    PullLoop,
    Reject,
    StartAt,
    parse_advisory,
)
from streamspace_common.bus.credentials import (
    Trust,
    operator_credentials,
    service_credentials,
)
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity, Heartbeat, OpenTunnel, TunnelOpened
from streamspace_common.contracts.events import CommandReceived, Event, UserSignedIn
from streamspace_common.contracts.identity import system_actor
from streamspace_common.contracts.ids import ClusterId, SessionId, new_user_id
from streamspace_common.contracts.permissions import OPERATORS
from streamspace_common.contracts.permissions import agent as agent_rights
from streamspace_common.contracts.requests import AgentMethods, AuthMethods, Empty, KeySet
from streamspace_common.contracts.streams import (
    COMMANDS,
    EVENTS,
    SESSION_ADVISORIES,
    SESSION_EVENTS,
    agent_durable,
)
from streamspace_common.contracts.subjects import command, heartbeat
from streamspace_common.testing.waiting import eventually

LAB, OTHER = ClusterId("lab"), ClusterId("other")
SESSION = SessionId("ada-desktop-01234567")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Secured]:
    secured = Secured(tmp_path / "nats")
    secured.server.start()
    yield secured
    secured.server.stop()


@pytest_asyncio.fixture
async def secured(server: Secured) -> AsyncIterator[Secured]:
    await server.enrol(LAB, OTHER)
    yield server
    await server.close()


@pytest_asyncio.fixture
async def session(secured: Secured) -> Bus:
    bus = await secured.service("session")
    await secured.streams(bus)
    return bus


def event(cluster: ClusterId = LAB) -> Event:
    return CommandReceived(
        id=uuid4().hex,
        at=datetime.now(UTC),
        cluster_id=cluster,
        instance="one",
        session_id=SESSION,
        generation=1,
    )


def beat(cluster: ClusterId) -> Heartbeat:
    return Heartbeat(
        cluster_id=cluster,
        instance="one",
        runtime=RuntimeKind.NULL,
        version="1",
        sent_at=datetime.now(UTC),
        capacity=Capacity(max_sessions=1, cpu=1, memory=1),
        running_sessions=0,
    )


async def denied(attempt: Callable[[], Awaitable[object]], *, what: str) -> None:
    """`attempt` fails at once, and one clear log line names `what`."""
    with structlog.testing.capture_logs() as logs:
        with pytest.raises(PermissionDeniedError):
            await attempt()
        await eventually(
            lambda: any(
                line["event"] == "bus.permission_denied" and what.lower() in line["error"].lower()
                for line in logs
            ),
            message=f"a log line that tells of {what}",
        )


async def test_an_agent_pulls_settles_reports_and_beats_with_its_least_rights(
    secured: Secured, session: Bus
) -> None:
    agent = await secured.agent(LAB)
    heard: list[str] = []
    taken: list[Delivery] = []

    async def hear(message: object) -> None:
        heard.append(message.subject)  # type: ignore[attr-defined]

    async def take(delivery: Delivery) -> None:
        taken.append(delivery)
        await agent.publish_event(event(), source="agent/lab")

    await session.subscribe("hb.*.*", hear)
    loop = PullLoop(agent, agent_durable(LAB), take, key=lambda d: d.subject, concurrency=4)
    running = asyncio.create_task(loop.run())
    await session.publish(command(LAB, SESSION), b"{}", {"Nats-Msg-Id": "one"})
    await session.publish(command(OTHER, SESSION), b"{}", {"Nats-Msg-Id": "two"})
    await agent.publish_core(heartbeat(LAB, "one"), beat(LAB))
    await eventually(lambda: heard == ["hb.lab.one"])
    await eventually(lambda: [d.subject for d in taken] == ["cmd.lab.ada-desktop-01234567"])

    async def settled() -> bool:
        lag = await session.consumer_lag(COMMANDS.name, agent_durable(LAB).name)
        return lag.pending == lag.ack_pending == 0

    await eventually(settled)
    assert await session.last_sequence(EVENTS.name) == 1
    assert (await session.consumer_lag(COMMANDS.name, agent_durable(LAB).name)).waiting > 0
    await loop.drain(1)
    await running


@pytest.mark.parametrize(
    ("subject", "what"),
    [
        ("evt.other.session.x.started", "evt.other"),
        ("evt.core.session.x.state_changed", "evt.core"),
        ("cmd.lab.x", "cmd.lab"),
        ("cmd.other.x", "cmd.other"),
        ("hb.other.one", "hb.other"),
        ("svc.session.redeem_ticket", "svc.session"),
        ("rpc.other.open_tunnel", "rpc.other"),
        ("$JS.API.STREAM.INFO.COMMANDS", "STREAM.INFO"),
        ("$JS.API.STREAM.NAMES", "STREAM.NAMES"),
        ("$JS.API.STREAM.PURGE.COMMANDS", "STREAM.PURGE"),
        ("$JS.API.STREAM.DELETE.COMMANDS", "STREAM.DELETE"),
        ("$JS.API.STREAM.MSG.GET.COMMANDS", "MSG.GET"),
        ("$JS.API.DIRECT.GET.COMMANDS", "DIRECT.GET"),
        ("$JS.API.CONSUMER.CREATE.COMMANDS.mine", "CONSUMER.CREATE"),
        ("$JS.API.CONSUMER.DELETE.COMMANDS.agent-other", "CONSUMER.DELETE"),
        ("$JS.API.CONSUMER.MSG.NEXT.COMMANDS.agent-other", "agent-other"),
        ("$JS.API.CONSUMER.INFO.COMMANDS.agent-lab", "CONSUMER.INFO"),
        ("$JS.ACK.COMMANDS.agent-other.1.1.1.1.0", "agent-other"),
        ("$KV.presence.x", "$KV"),
        ("$SYS.REQ.SERVER.PING", "$SYS"),
    ],
)
async def test_an_agent_may_publish_nothing_else(
    secured: Secured, session: Bus, subject: str, what: str
) -> None:
    agent = await secured.agent(LAB)
    await denied(lambda: agent.link.request(subject, b"{}", timeout=60), what=what)
    assert agent.connected


@pytest.mark.parametrize(
    "subject", ["cmd.>", "evt.>", "_INBOX.>", "_INBOX_other.>", "rpc.other.>", "hb.>", ">", "$JS.>"]
)
async def test_an_agent_may_listen_to_nobody_else(
    secured: Secured, session: Bus, subject: str
) -> None:
    agent = await secured.agent(LAB)

    async def ignore(message: object) -> None:
        pass

    with structlog.testing.capture_logs() as logs:
        await agent.subscribe(subject, ignore)
        await eventually(lambda: any(line["event"] == "bus.permission_denied" for line in logs))


async def test_an_acknowledgement_cannot_be_led_into_another_clusters_commands(
    secured: Secured, session: Bus
) -> None:
    """The server checks no reply subject; only the agents' own account keeps this out."""
    agent = await secured.agent(LAB)
    victim = command(OTHER, SESSION)
    before = await session.publish(victim, b'{"keep": "me"}', {"Nats-Msg-Id": "victim"})
    await agent.link.publish(
        event().subject, b"{}", reply=victim, headers={"Nats-Msg-Id": "attack"}
    )
    # A pull whose answers are led there, and a settlement too.
    await agent.link.publish(
        "$JS.API.CONSUMER.MSG.NEXT.COMMANDS.agent-lab", b'{"no_wait": true}', reply=victim
    )
    await agent.link.request(event().subject, b"{}", headers={"Nats-Msg-Id": "honest"})
    assert await session.last_sequence(EVENTS.name) == 2
    newest = await session.newest_command(OTHER, SESSION)
    assert newest is not None
    assert (newest.sequence, newest.payload) == (before.sequence, b'{"keep": "me"}')


async def test_the_session_service_provisions_publishes_and_consumes(
    secured: Secured, session: Bus
) -> None:
    taken: list[str] = []

    async def take(delivery: Delivery) -> None:
        taken.append(delivery.type)

    loop = PullLoop(session, SESSION_EVENTS, take, key=lambda d: d.subject, concurrency=4)
    running = asyncio.create_task(loop.run())
    agent = await secured.agent(LAB)
    await agent.publish_event(event(), source="agent/lab")
    await eventually(lambda: taken == ["session.command-received.v1"])
    assert await session.purge_commands(LAB, SESSION) == 0
    await loop.drain(1)
    await running


async def test_the_gateway_reads_events_and_calls_services(secured: Secured, session: Bus) -> None:
    gateway, auth = await secured.service("gateway"), await secured.service("auth")

    async def keys(request: Empty) -> KeySet:
        return KeySet(keys=({"kid": "one"},))

    served = await auth.serve("auth", {AuthMethods.JWKS: keys})
    assert (await gateway.call(AuthMethods.JWKS, Empty())).keys[0]["kid"] == "one"
    signed_in = UserSignedIn(
        id=uuid4().hex, at=datetime.now(UTC), user_id=new_user_id(), actor=system_actor("auth")
    )
    await auth.publish_event(signed_in, source="auth")
    async with aclosing(
        gateway.tail(EVENTS.name, ["evt.core.user.>", "evt.*.session.>"], start=StartAt.all())
    ) as events:
        assert (await anext(events)).type == "user.signed-in.v1"
    await denied(
        lambda: gateway.publish("evt.core.user.x.created", b"{}", {}, timeout=60), what="evt.core"
    )
    await denied(lambda: gateway.publish("cmd.lab.x", b"{}", {}, timeout=60), what="cmd.lab")
    await denied(lambda: auth.publish("cmd.lab.x", b"{}", {}, timeout=60), what="cmd.lab")
    await served.stop()


def tunnel_request() -> OpenTunnel:
    return OpenTunnel(
        tunnel_id="t",
        secret="s",
        dial_url="ws://127.0.0.1:1",
        session_id=SESSION,
        port=5900,
        deadline=datetime.now(UTC),
    )


async def test_the_relay_asks_agents_and_follows_events(secured: Secured, session: Bus) -> None:
    relay, agent = await secured.service("vnc-proxy"), await secured.agent(LAB)

    async def open_tunnel(request: OpenTunnel) -> TunnelOpened:
        return TunnelOpened(tunnel_id=request.tunnel_id, instance="one")

    served = await agent.serve_cluster(LAB, {AgentMethods.OPEN_TUNNEL: open_tunnel})
    for _ in range(20):
        opened = await relay.call_cluster(AgentMethods.OPEN_TUNNEL, LAB, tunnel_request())
        assert opened.instance == "one"
    await agent.publish_event(event(), source="agent/lab")
    async with aclosing(
        relay.tail(EVENTS.name, ["evt.*.session.>"], start=StartAt.all())
    ) as events:
        assert (await anext(events)).type == "session.command-received.v1"
    await served.stop()


async def test_a_cluster_without_agents_is_told_at_once(secured: Secured, session: Bus) -> None:
    relay = await secured.service("vnc-proxy")
    for _ in range(2):
        with pytest.raises(NobodyAnswersError):
            await relay.link.request("rpc.lab.open_tunnel", timeout=60, cluster=LAB)


async def test_replicas_of_an_agent_share_requests_and_answer_each_once(
    secured: Secured, session: Bus
) -> None:
    relay = await secured.service("vnc-proxy")
    answered: list[str] = []

    def served_by(instance: str) -> Any:
        async def open_tunnel(request: OpenTunnel) -> TunnelOpened:
            answered.append(instance)
            return TunnelOpened(tunnel_id=request.tunnel_id, instance=instance)

        return {AgentMethods.OPEN_TUNNEL: open_tunnel}

    served = [
        await (await secured.agent(LAB)).serve_cluster(LAB, served_by(instance))
        for instance in ("one", "two")
    ]
    for _ in range(40):
        await relay.call_cluster(AgentMethods.OPEN_TUNNEL, LAB, tunnel_request())
    assert len(answered) == 40
    assert set(answered) == {"one", "two"}
    for each in served:
        await each.stop()


async def test_a_pull_goes_on_while_other_clusters_are_let_in(
    secured: Secured, session: Bus
) -> None:
    """What it asked for before comes to it at once, and not first after `ack_wait`."""
    agent = await secured.agent(LAB)
    # Deliveries, this one included.
    taken: asyncio.Queue[int] = asyncio.Queue()

    async def take(delivery: Delivery) -> None:
        taken.put_nowait(delivery.deliveries)

    loop = PullLoop(agent, agent_durable(LAB), take, key=lambda d: d.subject, concurrency=4)
    running = asyncio.create_task(loop.run())
    await session.publish("cmd.lab.before", b"{}", {})
    assert await taken.get() == 1
    for cluster in ("second", "third"):
        await secured.enrol(ClusterId(cluster))
        await session.publish(f"cmd.lab.after-{cluster}", b"{}", {})
        assert await taken.get() == 1
    await loop.drain(1)
    await running


async def test_the_catalog_service_publishes_templates_only(secured: Secured, session: Bus) -> None:
    catalog = await secured.service("catalog-sync")
    stored = await catalog.publish("evt.core.template.a_b.published", b"{}", {})
    assert stored.stream == EVENTS.name
    await denied(
        lambda: catalog.publish("evt.core.user.x.created", b"{}", {}, timeout=60), what="evt.core"
    )


async def test_credentials_survive_a_restart_of_the_server(secured: Secured, session: Bus) -> None:
    agent = await secured.agent(LAB)
    secured.server.restart(kill=True)
    stored = await agent.publish_event(event(), source="agent/lab", timeout=10)
    assert stored.sequence == 1


async def test_an_expired_credential_file_ends_the_client_and_tells(secured: Secured) -> None:
    told = asyncio.Event()
    path = secured.directory / "short.creds"
    soon = datetime.now(UTC) + timedelta(seconds=2)
    path.write_text(operator_credentials(secured.trust.services, "ops", expires_at=soon))
    bus = await Bus.connect(
        secured.server.url,
        name="short",
        credentials=path,
        inbox=OPERATORS["ops"].inbox,
        on_closed=told.set,
    )
    async with asyncio.timeout(10):
        await told.wait()
    assert not bus.connected
    with pytest.raises(BusUnavailableError):
        await bus.link.request("$JS.API.INFO")
    await bus.close()


async def test_an_identity_outlives_its_token_and_goes_on_with_the_next(
    secured: Secured, session: Bus
) -> None:
    refusals: list[None] = []
    identity = secured.user(LAB, expires_at=datetime.now(UTC) + timedelta(seconds=2))
    bus = await secured.connect(
        identity, agent_rights(LAB).inbox, on_refused=lambda: refusals.append(None)
    )
    await eventually(lambda: len(refusals) > 1, message="refused when it ended, and since")
    assert not bus.connected
    identity.token = secured.renewed(LAB, identity)
    stored = await bus.publish_event(event(), source="agent/lab", timeout=20)
    assert stored.sequence == 1


async def test_a_newer_token_is_shown_without_losing_anything(
    secured: Secured, session: Bus
) -> None:
    identity = secured.user(LAB)
    bus = await secured.connect(identity, agent_rights(LAB).inbox)
    taken: list[str] = []

    async def take(delivery: Delivery) -> None:
        await bus.publish_event(event(), source="agent/lab", timeout=20)
        taken.append(delivery.subject)

    loop = PullLoop(bus, agent_durable(LAB), take, key=lambda d: d.subject, concurrency=4)
    running = asyncio.create_task(loop.run())
    for number in range(40):
        await session.publish(command(LAB, SessionId(f"s-{number}")), b"{}", {})
        if number % 10 == 0:
            identity.token = secured.renewed(LAB, identity)
            await bus.show_newer_credential()
    # What was on its way to the old connection comes again once its time to be settled is over.
    await eventually(
        lambda: len(set(taken)) == 40, timeout=90, message="every command is carried out"
    )

    async def settled() -> bool:
        lag = await session.consumer_lag(COMMANDS.name, agent_durable(LAB).name)
        return lag.pending == lag.ack_pending == 0

    await eventually(settled, timeout=60)
    await loop.drain(1)
    await running


async def test_whoever_connects_for_a_moment_is_told_that_it_is_refused(secured: Secured) -> None:
    user = Identity.from_creds(service_credentials(Trust.new().services, "session"))
    with pytest.raises(CredentialRefusedError, match="Authorization Violation"):
        await secured.connect(user, "_INBOX_session", patience=10)
    secured.server.stop()
    with pytest.raises(BusUnavailableError):
        await secured.connect(secured.user(LAB), agent_rights(LAB).inbox, patience=1)


async def test_a_stranger_is_not_let_in(secured: Secured) -> None:
    path = secured.directory / "stranger.creds"
    path.write_text(service_credentials(Trust.new().services, "session"))
    with structlog.testing.capture_logs() as logs:
        connecting = asyncio.create_task(
            Bus.connect(secured.server.url, name="stranger", credentials=path)
        )
        await eventually(
            lambda: any("authorization" in str(line.get("error", "")).lower() for line in logs)
        )
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting


async def test_the_session_service_hears_of_what_an_agent_refuses(
    secured: Secured, session: Bus
) -> None:
    agent = await secured.agent(LAB)

    async def refuse(_delivery: Delivery) -> None:
        raise Reject("not with me")

    heard: list[Advisory | None] = []

    async def listen(delivery: Delivery) -> None:
        heard.append(parse_advisory(delivery.payload))

    loops = [
        PullLoop(agent, agent_durable(LAB), refuse, key=lambda d: d.subject, concurrency=1),
        PullLoop(session, SESSION_ADVISORIES, listen, key=lambda d: d.subject, concurrency=1),
    ]
    running = [asyncio.create_task(loop.run()) for loop in loops]
    stored = await session.publish(command(LAB, SESSION), b"{}", {})
    await eventually(lambda: bool(heard), message="the advisory of the refusal")
    for loop in loops:
        await loop.drain(1)
    await asyncio.gather(*running)
    [said] = heard
    assert said is not None
    assert (said.stream, said.consumer, said.sequence) == ("COMMANDS", "agent-lab", stored.sequence)
    assert (said.terminated, said.reason, said.deliveries) == (True, "not with me", 1)
    held = await session.message_at("COMMANDS", stored.sequence)
    assert held is not None
    assert held.payload == b"{}"
    lag = await session.consumer_lag(COMMANDS.name, "agent-lab")
    assert lag.delivered == stored.sequence
    # Settled for good: nothing is left to be heard of again.
    assert (await session.consumer_lag("ADVISORIES", SESSION_ADVISORIES.name)).pending == 0


async def test_a_projection_can_be_rebuilt_with_the_session_services_credentials(
    session: Bus,
) -> None:
    for _ in range(3):
        await session.publish("evt.core.session.s-1.created", b"x" * 200_000, {})
    seen = []
    async with aclosing(
        session.tail("EVENTS", ["evt.core.session.*.*"], start=StartAt.all())
    ) as messages:
        async for message in messages:
            seen.append(message.pending)
            if message.pending == 0:
                break
    assert seen == [2, 1, 0]
    assert await session.stream_bounds("EVENTS") == (1, 3)
    first = await session.next_message("EVENTS", "evt.core.session.*.*", 1)
    assert first is not None
    assert first.sequence == 1
    assert await session.next_message("EVENTS", "evt.core.user.*.*", 1) is None
