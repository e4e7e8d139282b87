"""Enrolment: what a cluster's credential opens on a real server, and what it does not."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.integration.auth.installation import Installation

from streamspace_common.bus import ApiError, Bus, BusError, Delivery, PullLoop, ensure_durable
from streamspace_common.bus.credentials import Trust, server_config
from streamspace_common.contracts import permissions
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.commands import StopSession, message_id
from streamspace_common.contracts.events import ClusterEnrolled, CommandReceived
from streamspace_common.contracts.headers import command_headers
from streamspace_common.contracts.identity import Role, system_actor
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.contracts.problems import Code, Problem, ProblemError
from streamspace_common.contracts.requests import AuthMethods, EnrolCluster
from streamspace_common.contracts.streams import agent_durable
from streamspace_common.contracts.subjects import command
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually
from streamspace_embedded.ports import free_port

LAB, OTHER = ClusterId("lab"), ClusterId("other")
SESSION = SessionId("ada-desktop-01234567")


async def enrol(auth: Installation, cluster: ClusterId = LAB, **fields: Any) -> Enrolment:
    request = EnrolCluster(principal=auth.admin, cluster_id=cluster, address="192.0.2.9", **fields)
    return await auth.call(AuthMethods.ENROL_CLUSTER, request)


async def agent(auth: Installation, enrolment: Enrolment, url: str | None = None) -> Bus:
    path = auth.folder / f"{uuid4().hex}.creds"
    path.write_text(enrolment.credentials)
    inbox = permissions.agent(enrolment.cluster_id).inbox
    return await auth.connect_with(path, inbox, url or enrolment.nats_urls[0])


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
        joining = asyncio.create_task(agent(auth, await enrol(auth), elsewhere.url))
        await eventually(lambda: "authentication error" in elsewhere.log.lower())
        assert not joining.done()
        # The client may miss a cancellation between two of its tries.
        while not joining.done():
            joining.cancel()
            await asyncio.wait({joining}, timeout=0.2)
    finally:
        elsewhere.stop()
