"""Enrolment: what a cluster's credential opens on a real server, and what it does not."""

import asyncio
import re
import shutil
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.integration.auth.installation import Installation

from streamspace_agent.joining import asking
from streamspace_common.bus import (
    ApiError,
    Bus,
    BusError,
    CredentialRefusedError,
    Delivery,
    Identity,
    PullLoop,
    ensure_durable,
    provision,
)
from streamspace_common.bus.credentials import Trust, server_config
from streamspace_common.contracts import permissions
from streamspace_common.contracts.clusters import Enrolment, OpenTunnel, TunnelOpened
from streamspace_common.contracts.commands import StopSession, message_id
from streamspace_common.contracts.events import ClusterEnrolled, ClusterRevoked, CommandReceived
from streamspace_common.contracts.headers import command_headers
from streamspace_common.contracts.identity import Role, system_actor
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.contracts.problems import Code, Problem, ProblemError
from streamspace_common.contracts.requests import (
    AgentMethods,
    AuthMethods,
    EnrolCluster,
    IssueCredential,
    RevokeCluster,
)
from streamspace_common.contracts.streams import agent_durable
from streamspace_common.contracts.subjects import command
from streamspace_common.runtime.proxies import Proxies
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually
from streamspace_embedded.ports import free_port

LAB, OTHER = ClusterId("lab"), ClusterId("other")
SESSION = SessionId("ada-desktop-01234567")


async def enrol(auth: Installation, cluster: ClusterId = LAB, **fields: Any) -> Enrolment:
    request = EnrolCluster(principal=auth.admin, cluster_id=cluster, address="192.0.2.9", **fields)
    return await auth.call(AuthMethods.ENROL_CLUSTER, request)


async def agent(auth: Installation, enrolment: Enrolment, url: str | None = None) -> Bus:
    """Connected with a working credential, as an agent of the enrolled cluster is."""
    identity = await working(enrolment)
    inbox = permissions.agent(enrolment.cluster_id).inbox
    return await auth.connect_with(identity, inbox, url or enrolment.nats_urls[0])


async def working(enrolment: Enrolment) -> Identity:
    identity = Identity.fresh()
    ask = asking("one", None, Proxies())
    identity.token = (await ask(enrolment, identity.public_key)).token
    return identity


async def joining(auth: Installation, enrolment: Enrolment) -> Bus:
    """Connected with the enrolment's own credential."""
    return await auth.connect_with(
        Identity.from_creds(enrolment.credentials), permissions.joining(enrolment.cluster_id).inbox
    )


async def revoke(auth: Installation, cluster: ClusterId = LAB, **fields: Any) -> None:
    request = RevokeCluster(
        **{"principal": auth.admin, "cluster_id": cluster, "address": "192.0.2.9"} | fields
    )
    await auth.call(AuthMethods.REVOKE_CLUSTER, request)


def received(cluster: ClusterId) -> CommandReceived:
    return CommandReceived(
        id=uuid4().hex,
        at=datetime.now(UTC),
        cluster_id=cluster,
        instance="one",
        session_id=SESSION,
        generation=1,
    )


async def refused(code: Code, attempt: Awaitable[object]) -> Problem:
    with pytest.raises(ProblemError) as caught:
        await attempt
    assert caught.value.problem.code is code
    return caught.value.problem


async def test_an_enrolment_says_where_to_go_and_is_told_without_its_secret(
    auth: Installation,
) -> None:
    enrolment = await enrol(auth, name="The lab")
    assert (enrolment.cluster_id, enrolment.nats_urls) == (LAB, (auth.nats.url,))
    assert enrolment.tunnel_url == "ws://127.0.0.1:8081"
    (told,) = await auth.events(ClusterEnrolled)
    assert (told.cluster_id, told.name) == (LAB, "The lab")
    assert (told.actor.id, told.actor.address) == (auth.admin.user_id, "192.0.2.9")
    assert "NKEY" not in told.to_json().decode()
    kept = repr(await auth.sql("SELECT * FROM clusters"))
    assert enrolment.credentials.splitlines()[-2] not in kept


async def test_a_known_cluster_is_enrolled_again_only_on_purpose(auth: Installation) -> None:
    first = await enrol(auth, name="The lab")
    await refused(Code.ALREADY_EXISTS, enrol(auth))
    second = await enrol(auth, replace=True)
    assert second.credentials != first.credentials
    assert [event.name for event in await auth.events(ClusterEnrolled, 2)] == ["The lab", "The lab"]


async def test_of_two_who_enrol_at_once_one_is_refused(auth: Installation) -> None:
    outcomes = await asyncio.gather(*(enrol(auth) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(outcome, ProblemError) for outcome in outcomes) == 3


async def test_the_control_planes_own_name_is_no_cluster(auth: Installation) -> None:
    problem = await refused(Code.INVALID_REQUEST, enrol(auth, ClusterId("core")))
    assert problem.errors[0].pointer == "/id"


async def test_only_an_admin_enrols(auth: Installation) -> None:
    _, operator = await auth.signed_in("ada", Role.OPERATOR)
    request = EnrolCluster(principal=operator, cluster_id=LAB)
    await refused(Code.FORBIDDEN, auth.call(AuthMethods.ENROL_CLUSTER, request))


async def test_the_credential_lets_an_agent_do_its_work(auth: Installation) -> None:
    session = await auth.connect("session")
    await ensure_durable(session, agent_durable(LAB))
    lab = await agent(auth, await enrol(auth))

    await lab.publish_event(received(LAB), source="agent/lab")

    got: list[str | None] = []

    async def take(delivery: Delivery) -> None:
        got.append(delivery.type)

    loop = PullLoop(lab, agent_durable(LAB), take, key=lambda one: one.subject, concurrency=1)
    running = asyncio.create_task(loop.run())
    stop = StopSession(
        command_id="cmd-01234567",
        session_id=SESSION,
        cluster_id=LAB,
        generation=1,
        issued_at=datetime.now(UTC),
        deadline=datetime.now(UTC),
        actor=system_actor("session"),
    )
    await session.publish(
        command(LAB, SESSION), stop.to_json(), command_headers(stop, source="session")
    )
    await eventually(lambda: got == [StopSession.TYPE], message=message_id(stop))
    await loop.drain(2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_credential_opens_nothing_of_another_cluster_nor_of_the_control_plane(
    auth: Installation,
) -> None:
    session = await auth.connect("session")
    await ensure_durable(session, agent_durable(OTHER))
    lab = await agent(auth, await enrol(auth))
    denied = (BusError, ApiError)
    with pytest.raises(denied):
        await lab.publish_event(received(OTHER), source="agent/lab", timeout=1)
    with pytest.raises(denied):
        await lab.publish(command(LAB, SESSION), b"{}", {}, timeout=1)
    with pytest.raises(denied):
        await lab.consumer_lag("COMMANDS", agent_durable(OTHER).name)
    with pytest.raises(ProblemError):
        await lab.call(AuthMethods.JWKS, AuthMethods.JWKS.request(), timeout=1)


async def test_another_installations_server_does_not_take_the_credential(
    auth: Installation, tmp_path: Path
) -> None:
    port = free_port()
    folder = tmp_path / "elsewhere"
    config = server_config(Trust.new(), port=port, store_dir=folder / "store")
    elsewhere = NatsServer(folder, config=config, port=port)
    elsewhere.start()
    try:
        enrolment = await enrol(auth)
        moved = enrolment.model_copy(update={"nats_urls": (elsewhere.url,)})
        with pytest.raises(CredentialRefusedError):
            await working(moved)
    finally:
        elsewhere.stop()


async def test_an_enrolment_can_do_nothing_but_ask(auth: Installation) -> None:
    await enrol(auth, OTHER)
    join = await joining(auth, await enrol(auth))
    question = IssueCredential(public_key=Identity.fresh().public_key)
    assert (await join.ask(AuthMethods.ISSUE_CREDENTIAL, LAB, question)).expires_in == 86400
    with pytest.raises(BusError):
        await join.publish_event(received(LAB), source="agent/lab", timeout=1)
    with pytest.raises(ProblemError):
        await join.ask(AuthMethods.ISSUE_CREDENTIAL, OTHER, question, timeout=1)
    with pytest.raises(ProblemError):
        await join.call(AuthMethods.JWKS, AuthMethods.JWKS.request(), timeout=1)
    await refused(
        Code.INVALID_REQUEST,
        join.ask(AuthMethods.ISSUE_CREDENTIAL, LAB, IssueCredential(public_key="U" + "A" * 55)),
    )


async def test_a_working_credential_cannot_be_used_to_get_another(auth: Installation) -> None:
    lab = await agent(auth, await enrol(auth))
    question = IssueCredential(public_key=Identity.fresh().public_key)
    with pytest.raises(ProblemError):
        await lab.ask(AuthMethods.ISSUE_CREDENTIAL, LAB, question, timeout=1)


async def test_a_replaced_enrolment_is_out_at_once_and_the_new_one_in(auth: Installation) -> None:
    old = await enrol(auth)
    bystander = await agent(auth, await enrol(auth, OTHER))
    refusals: list[None] = []
    lab = await auth.connect_with(
        await working(old),
        permissions.agent(LAB).inbox,
        on_refused=lambda: refusals.append(None),
    )
    new = await enrol(auth, replace=True)
    await eventually(lambda: not lab.connected, message="the old agent is put out")
    await eventually(lambda: len(refusals) > 1, message="and not let in again")
    with pytest.raises(CredentialRefusedError):
        await working(old)
    # In the very same second.
    successor = await agent(auth, new)
    await successor.publish_event(received(LAB), source="agent/lab")
    await bystander.publish_event(received(OTHER), source="agent/other")
    assert not lab.connected
    first, second, third = await auth.events(ClusterEnrolled, 3)
    assert (first.replaced, second.replaced, third.replaced) == (False, False, True)


async def test_a_revoked_cluster_is_out_until_it_is_enrolled_again(auth: Installation) -> None:
    old = await enrol(auth)
    lab = await agent(auth, old)
    await revoke(auth)
    await revoke(auth)  # again is no error
    await eventually(lambda: not lab.connected)
    with pytest.raises(CredentialRefusedError):
        await working(old)
    (told,) = await auth.events(ClusterRevoked)
    assert (told.cluster_id, told.actor.id) == (LAB, auth.admin.user_id)
    await refused(Code.ALREADY_EXISTS, enrol(auth))
    back = await agent(auth, await enrol(auth, replace=True))
    await back.publish_event(received(LAB), source="agent/lab")


async def test_only_an_admin_revokes_and_only_what_there_is(auth: Installation) -> None:
    await enrol(auth)
    _, operator = await auth.signed_in("ada", Role.OPERATOR)
    await refused(Code.FORBIDDEN, revoke(auth, principal=operator))
    await refused(Code.NOT_FOUND, revoke(auth, OTHER))


async def test_replicas_that_enrol_at_once_lose_no_cluster(auth: Installation) -> None:
    replicas = [await auth.replica() for _ in range(2)]
    names = [ClusterId(f"c{number}") for number in range(6)]
    enrolments = await asyncio.gather(
        *(
            replicas[number % 2].clusters.enrol(EnrolCluster(principal=auth.admin, cluster_id=name))
            for number, name in enumerate(names)
        )
    )
    relay = await auth.connect("vnc-proxy")

    async def open_tunnel(request: OpenTunnel) -> TunnelOpened:
        return TunnelOpened(tunnel_id=request.tunnel_id, instance="one")

    for enrolment in enrolments:
        bus = await agent(auth, enrolment)
        served = await bus.serve_cluster(
            enrolment.cluster_id, {AgentMethods.OPEN_TUNNEL: open_tunnel}
        )
        opened = await relay.call_cluster(
            AgentMethods.OPEN_TUNNEL, enrolment.cluster_id, tunnel_request()
        )
        assert opened.tunnel_id == "t"
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


async def test_servers_that_lost_their_volume_are_given_everything_again(
    auth: Installation,
) -> None:
    enrolment = await enrol(auth)
    lab = await agent(auth, enrolment)
    auth.nats.stop()
    shutil.rmtree(auth.folder / "nats" / "store")
    auth.nats.start()
    parts = await auth.replica()  # a start of auth; one that runs does so when it reconnects
    await provision(await auth.connect("session"))
    await eventually(lambda: lab.connected, message="the agent is let in again")
    await lab.publish_event(received(LAB), source="agent/lab", timeout=10)
    await parts.access.reconcile(parts.store)
    assert lab.connected  # the very same accounts disturb nobody


async def test_no_seed_of_the_bus_stands_readable_in_the_database(auth: Installation) -> None:
    await enrol(auth)
    rows = repr(await auth.sql("SELECT * FROM clusters")) + repr(
        await auth.sql("SELECT * FROM bus_accounts")
    )
    assert not re.search(r"S[OAU][A-Z2-7]{56}", rows)
