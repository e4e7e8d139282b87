"""Clusters that are not let in, and clusters that are gone for good.

Auth is a small stand-in here: what it tells and refuses is what the real one does, which
`tests/integration/auth/test_clusters.py` shows.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from streamspace_common.bus import ApiError, Bus, BusError
from streamspace_common.contracts.clusters import (
    Heartbeat,
    Inventory,
    ResourceReport,
    ResourceState,
)
from streamspace_common.contracts.events import ClusterEnrolled, ClusterRemoved, ClusterRevoked
from streamspace_common.contracts.identity import Principal, Role, user_actor
from streamspace_common.contracts.ids import ClusterId, SessionId, new_message_id
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    AuthMethods,
    Empty,
    ForgetCluster,
    ListClusters,
    ListRuntimes,
    RemoveCluster,
    SessionMethods,
)
from streamspace_common.contracts.sessions import Reason, SessionCommandState, SessionState
from streamspace_common.contracts.streams import agent_durable
from streamspace_common.contracts.subjects import heartbeat
from streamspace_common.testing.waiting import eventually
from streamspace_session.rebuild import rebuild

LAB = ClusterId("lab")
OPERATOR = Principal(user_id="usr-" + "7" * 32, username="olga", role=Role.OPERATOR)


def now() -> datetime:
    return datetime.now(UTC)


async def revoke(world, cluster=LAB):
    """As auth tells it."""
    await world.publish(
        ClusterRevoked(
            id=str(new_message_id()), at=now(), actor=world.admin_actor, cluster_id=cluster
        )
    )

    async def known():
        return (await world.cluster(cluster)).revoked_at is not None

    await eventually(known, message=f"{cluster} revoked")


async def enrolled_anew(world, cluster=LAB):
    await world.publish(
        ClusterEnrolled(
            id=str(new_message_id()),
            at=now(),
            actor=world.admin_actor,
            cluster_id=cluster,
            name="Another one",
            replaced=True,
        )
    )


async def removed(world, cluster=LAB) -> ClusterRemoved:
    event = ClusterRemoved(
        id=str(new_message_id()),
        at=now(),
        actor=user_actor(world.admin, "192.0.2.9"),
        cause="request-1",
        cluster_id=cluster,
    )
    await world.publish(event)
    return event


async def remove(world, cluster=LAB, *, by=None, end_sessions=False):
    request = RemoveCluster(
        principal=by or world.admin,
        address="192.0.2.9",
        cluster_id=cluster,
        end_sessions=end_sessions,
    )
    return await world.call(SessionMethods.REMOVE_CLUSTER, request, timeout=30)


async def listed(world):
    found = await world.call(SessionMethods.LIST_CLUSTERS, ListClusters(principal=world.admin))
    return {one.id: one for one in found.items}


async def is_listed(world, cluster=LAB):
    return cluster in await listed(world)


async def is_gone(world, cluster=LAB):
    return not await is_listed(world, cluster)


async def refusal(call):
    with pytest.raises(ProblemError) as refused:
        await call
    return refused.value.problem


class StandIn:
    """What auth does when it is asked to remove a cluster."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.let_in: set[str] = {LAB}
        self.revoked: set[str] = set()
        self.asked: list[ForgetCluster] = []

    def revoke(self, cluster: str) -> None:
        self.let_in.discard(cluster)
        self.revoked.add(cluster)

    async def forget(self, request: ForgetCluster) -> Empty:
        self.asked.append(request)
        if request.cluster_id in self.let_in:
            raise ProblemError.of(Code.WRONG_STATE, "Revoke its access first.")
        if request.cluster_id in self.revoked or request.listed:
            self.revoked.discard(request.cluster_id)
            event = ClusterRemoved(
                id=str(new_message_id()),
                at=now(),
                actor=user_actor(request.principal, request.address),
                cluster_id=request.cluster_id,
            )
            await self.bus.publish_event(event, source="auth")
            return Empty()
        raise ProblemError.of(Code.NOT_FOUND, "There is no such cluster.")


@pytest_asyncio.fixture
async def auth(world) -> AsyncIterator[StandIn]:
    stand_in = StandIn(world.bus)
    served = await world.bus.serve("auth", {AuthMethods.REMOVE_CLUSTER: stand_in.forget})
    yield stand_in
    await served.stop()


# Revoked.


async def test_a_revoked_cluster_is_shown_so_until_it_is_enrolled_again(lab):
    assert (await lab.cluster(LAB)).revoked_at is None
    await revoke(lab)
    shown = (await listed(lab))[LAB]
    assert shown.revoked_at is not None
    await enrolled_anew(lab)

    async def back():
        cluster = await lab.cluster(LAB)
        return (cluster.revoked_at, cluster.name) == (None, "Another one")

    await eventually(back)


async def test_nothing_is_placed_on_a_revoked_cluster_and_who_asks_for_it_is_told(lab):
    await lab.agent("east")
    await revoke(lab)
    for _ in range(3):
        assert (await lab.running()).cluster_id == "east"
    problem = await refusal(lab.create(cluster_id="lab"))
    assert problem.code is Code.NO_CLUSTER
    assert "access of cluster lab has been revoked" in problem.detail
    await revoke(lab, ClusterId("east"))
    problem = await refusal(lab.create())
    assert problem.detail.startswith("The access of every cluster that could run this")


async def test_a_session_at_rest_there_is_not_woken(lab):
    session = await lab.running()
    await lab.ask(SessionMethods.HIBERNATE, session.id)
    await lab.reaches(session.id, SessionState.HIBERNATED)
    await revoke(lab)
    problem = await refusal(lab.ask(SessionMethods.WAKE, session.id))
    assert (problem.code, "revoked" in problem.detail) == (Code.NO_CLUSTER, True)


async def test_its_runtime_is_not_offered_as_one_that_may_come_back(lab):
    async def offered():
        return await lab.call(SessionMethods.LIST_RUNTIMES, ListRuntimes(principal=lab.admin))

    assert len((await offered()).items) == 1
    await revoke(lab)
    assert ((await offered()).items, (await offered()).live) == ((), ())


async def test_its_sessions_say_why_they_are_out_of_sight(world):
    await world.start(offline_after=1)
    await world.template()
    agent = await world.agent()
    session = await world.running()
    await revoke(world)
    await agent.stop()
    shown = await world.reaches(session.id, SessionState.UNKNOWN, timeout=30)
    assert shown.reason is Reason.CLUSTER_REVOKED
    assert "enrolled again" in shown.message


async def test_older_news_of_its_access_change_nothing(lab):
    """A replica may come to an older event after a newer one: the stream's order counts."""
    await revoke(lab)
    old = ClusterEnrolled(
        id=str(new_message_id()), at=now(), actor=lab.admin_actor, cluster_id=LAB, name="Old"
    )
    async with lab.replicas[0].service.store.transaction() as tx:
        await tx.access.enrol(old, 1)
    assert (await lab.cluster(LAB)).revoked_at is not None


# Removed.


async def test_a_removed_cluster_is_in_no_list_and_leaves_nothing_behind(lab, auth):
    agent = lab.agents[0]
    await agent.stop()
    await revoke(lab)
    auth.revoke(LAB)
    answer = await remove(lab)
    assert (answer.cluster_id, answer.ended_sessions) == (LAB, 0)
    assert not await is_listed(lab)
    assert (await refusal(lab.cluster(LAB))).code is Code.NOT_FOUND
    with pytest.raises(ApiError):
        await lab.bus.consumer_lag("COMMANDS", agent_durable(LAB).name)
    assert auth.asked[0].principal == lab.admin
    assert (await refusal(remove(lab))).code is Code.NOT_FOUND


async def test_who_is_still_let_in_or_has_sessions_is_not_removed_by_mistake(lab, auth):
    assert (await refusal(remove(lab))).code is Code.WRONG_STATE
    session = await lab.running()
    auth.revoke(LAB)
    await revoke(lab)
    asked = len(auth.asked)
    problem = await refusal(remove(lab))
    assert problem.code is Code.WRONG_STATE
    assert "has 1 session that has not ended" in problem.detail
    assert len(auth.asked) == asked  # Nothing has happened.
    assert (await lab.get(session.id)).state is SessionState.RUNNING


async def test_only_an_admin_removes(lab, auth):
    auth.revoke(LAB)
    assert (await refusal(remove(lab, by=OPERATOR))).code is Code.FORBIDDEN
    assert auth.asked == []


async def test_its_sessions_end_and_free_what_their_owners_held(world, auth):
    """The main use: sessions that nobody will hear of again would be unknown for ever."""
    await world.start(offline_after=1)
    await world.template()
    agent = await world.agent()
    ada = world.user("ada")
    unknown, deleted = await world.running(ada), await world.running(ada)
    await agent.stop()
    await world.reaches(unknown.id, SessionState.UNKNOWN, timeout=30)
    await world.delete(deleted.id, ada)
    await world.reaches(deleted.id, SessionState.TERMINATING)
    await revoke(world)
    auth.revoke(LAB)
    assert (await remove(world, end_sessions=True)).ended_sessions == 2

    ended = await world.get(unknown.id)
    assert (ended.state, ended.reason) == (SessionState.FAILED, Reason.CLUSTER_REMOVED)
    assert ended.message == "Cluster lab was removed, and its sessions with it."
    assert (await world.get(deleted.id)).state is SessionState.TERMINATED
    # Nothing waits for an agent any more.
    stop = (await world.commands(deleted.id))[0]
    assert stop.state is SessionCommandState.SUPERSEDED
    async with world.replicas[0].service.store.transaction() as tx:
        assert await tx.sessions.oldest_waiting() is None
        assert (await tx.sessions.lock_usage([ada.user_id]))[ada.user_id].sessions == 0
    assert await world.bus.newest_command(LAB, SessionId(deleted.id)) is None
    # Whoever ended them is in their history.
    last = (await world.history(unknown.id))[-1]
    assert last.actor.id == world.admin.user_id


async def test_a_session_that_failed_with_its_cluster_can_be_deleted(lab, auth):
    session = await lab.running()
    await revoke(lab)
    auth.revoke(LAB)
    await remove(lab, end_sessions=True)
    accepted = await lab.delete(session.id)
    assert accepted.command_id is None
    assert accepted.session.state is SessionState.TERMINATED


async def test_more_sessions_than_one_transaction_takes_end_with_it(lab, auth, monkeypatch):
    monkeypatch.setattr("streamspace_session.handlers.removal.BATCH", 2)
    sessions = [await lab.create() for _ in range(5)]
    await revoke(lab)
    auth.revoke(LAB)
    await remove(lab, end_sessions=True)
    for one in sessions:
        assert (await lab.get(one.session.id)).state is SessionState.FAILED


async def test_what_an_agent_of_it_still_says_does_not_bring_it_back(lab, auth):
    session = await lab.running()
    agent = lab.agents[0]
    await revoke(lab)
    auth.revoke(LAB)
    await remove(lab, end_sessions=True)
    await agent.beat()
    inventory = Inventory(
        cluster_id=LAB,
        instance="late",
        sent_at=now(),
        resources=(
            ResourceReport(session_id=session.id, generation=1, state=ResourceState.RUNNING),
        ),
    )
    await lab.bus.publish_core(heartbeat(LAB, "late"), inventory)
    presences = lab.replicas[0].service._ear._presences
    assert await presences.heartbeat(_beat()) is None
    await presences.inventory(inventory)
    assert not await is_listed(lab)
    assert (await lab.get(session.id)).state is SessionState.FAILED
    assert await lab.bus.newest_command(LAB, SessionId(session.id)) is None


async def test_one_enrolled_by_its_name_later_starts_clean(lab, auth):
    session = await lab.running()
    await revoke(lab)
    auth.revoke(LAB)
    agent = lab.agents.pop()
    await agent.stop()
    await remove(lab, end_sessions=True)
    successor = await lab.agent("lab")
    fresh = await lab.cluster(LAB)
    assert (fresh.revoked_at, fresh.drained_at, fresh.reserved_sessions) == (None, None, 0)
    after = await lab.running(cluster_id="lab")
    assert {one.session_id for one in successor.commands} == {after.id}
    assert (await lab.get(session.id)).state is SessionState.FAILED


async def test_the_removal_of_a_former_one_does_not_touch_its_successor(lab):
    """Taken in another order than told: the enrolment is the newer news."""
    session = await lab.running()
    event = await removed(lab, ClusterId("nobody"))
    first = await lab.bus.last_sequence("EVENTS")
    await enrolled_anew(lab)
    await eventually(lambda: _named(lab, "Another one"))
    removal = lab.replicas[0].service._removal
    late = event.model_copy(update={"id": str(new_message_id()), "cluster_id": LAB})
    await removal.act(late, first)
    assert await is_listed(lab)
    assert (await lab.get(session.id)).state is SessionState.RUNNING


async def test_an_older_enrolment_does_not_bring_a_removed_one_back(lab):
    await revoke(lab)
    await removed(lab)
    await eventually(lambda: is_gone(lab))
    old = ClusterEnrolled(
        id=str(new_message_id()), at=now(), actor=lab.admin_actor, cluster_id=LAB, name="Old"
    )
    async with lab.replicas[0].service.store.transaction() as tx:
        await tx.access.enrol(old, 1)
    assert not await is_listed(lab)


async def test_what_was_told_while_the_service_was_away_is_done_when_it_is_back(lab):
    session = await lab.running()
    await lab.stop_service()
    await removed(lab)
    await lab.start()
    await eventually(lambda: is_gone(lab))
    assert (await lab.get(session.id)).reason is Reason.CLUSTER_REMOVED


async def test_a_removal_the_bus_breaks_off_is_finished_later(lab, monkeypatch):
    session = await lab.running()
    removal = lab.replicas[0].service._removal
    durables, tries = removal._durables, []
    clear = durables.clear

    async def broken_at_first(cluster):
        tries.append(cluster)
        if len(tries) == 1:
            raise BusError("gone for a moment")
        await clear(cluster)

    monkeypatch.setattr(durables, "clear", broken_at_first)
    await removed(lab)
    await eventually(lambda: is_gone(lab))
    assert len(tries) == 2
    assert (await lab.get(session.id)).reason is Reason.CLUSTER_REMOVED


async def test_two_who_remove_at_once_are_both_answered(lab, auth):
    await revoke(lab)
    auth.revoke(LAB)
    answers = await asyncio.gather(remove(lab), remove(lab), return_exceptions=True)
    assert not [one for one in answers if isinstance(one, BaseException) and not _missing(one)]
    assert not await is_listed(lab)


async def test_where_auth_is_away_nothing_happens(lab):
    await revoke(lab)
    assert (await refusal(remove(lab))).code is Code.SERVICE_UNAVAILABLE
    assert await is_listed(lab)


async def test_history_and_projection_agree_after_a_removal(lab, auth):
    await lab.running()
    waits = await lab.running()
    await lab.ask(SessionMethods.HIBERNATE, waits.id)
    await lab.reaches(waits.id, SessionState.HIBERNATED)
    await revoke(lab)
    auth.revoke(LAB)
    await remove(lab, end_sessions=True)
    await lab.told(waits.id, "starting", "running", "hibernating", "hibernated", "failed")
    report = await rebuild(lab.bus, lab.database, "after_removal", keep=False)
    assert (report.sessions, report.rows_that_differ) == (2, 0)


def _beat() -> Heartbeat:
    return Heartbeat(
        cluster_id=LAB,
        instance="late",
        runtime="null",
        version="0.1.0",
        sent_at=now(),
        capacity={"max_sessions": 10, "cpu": 1, "memory": 1},
        running_sessions=0,
    )


async def _named(world, name):
    return (await world.cluster(LAB)).name == name


def _missing(error: BaseException) -> bool:
    return isinstance(error, ProblemError) and error.problem.code is Code.NOT_FOUND
