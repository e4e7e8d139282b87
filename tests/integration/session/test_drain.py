"""Draining a cluster: nothing new goes there, what it has stays or is put to rest."""

import pytest

from streamspace_common.contracts.clusters import Presence
from streamspace_common.contracts.events import ClusterDrained, ClusterUndrained, parse_event
from streamspace_common.contracts.identity import Principal, Role
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    DrainCluster,
    SessionMethods,
    SessionRequest,
    UndrainCluster,
)
from streamspace_common.contracts.sessions import SessionState
from streamspace_common.testing.waiting import eventually

OPERATOR = Principal(user_id="usr-" + "7" * 32, username="olga", role=Role.OPERATOR)


async def drain(world, cluster="lab", *, by=OPERATOR, hibernate=False):
    request = DrainCluster(
        principal=by, address="192.0.2.9", cluster_id=cluster, hibernate=hibernate
    )
    return await world.call(SessionMethods.DRAIN_CLUSTER, request)


async def undrain(world, cluster="lab", *, by=OPERATOR):
    return await world.call(
        SessionMethods.UNDRAIN_CLUSTER, UndrainCluster(principal=by, cluster_id=cluster)
    )


async def refusal(call):
    with pytest.raises(ProblemError) as refused:
        await call
    return refused.value.problem


async def told(world, *types):
    """The events of clusters that were drained or taken back."""
    found = []
    for kind in types:
        message = await world.bus.next_message("EVENTS", f"evt.core.cluster.*.{kind}", 1)
        while message is not None:
            found.append(parse_event(message.type, message.payload))
            message = await world.bus.next_message(
                "EVENTS", f"evt.core.cluster.*.{kind}", message.sequence + 1
            )
    return found


async def test_no_new_session_goes_there_and_those_it_has_stay(lab):
    await lab.agent("east")
    stays = await lab.running(cluster_id="lab")
    drained = await drain(lab)
    assert drained.cluster.presence is Presence.DRAINING
    assert drained.cluster.drained_by == "olga"
    assert drained.hibernating == 0

    for _ in range(4):
        assert (await lab.running()).cluster_id == "east"
    assert (await lab.get(stays.id)).state is SessionState.RUNNING
    problem = await refusal(lab.create(cluster_id="lab"))
    assert problem.code is Code.NO_CLUSTER
    assert "being drained" in problem.detail

    taken_back = await undrain(lab)
    assert (taken_back.presence, taken_back.drained_at) == (Presence.ONLINE, None)
    assert (await lab.running(cluster_id="lab")).cluster_id == "lab"


async def test_it_stays_drained_through_heartbeats_and_an_agents_absence(world):
    await world.start(offline_after=1)
    await world.template()
    agent = await world.agent()
    await drain(world)
    await agent.beat()
    await eventually(lambda: world.is_("lab", Presence.DRAINING))
    await agent.stop()
    await eventually(lambda: world.is_("lab", Presence.OFFLINE), timeout=30)
    assert (await refusal(world.create())).code is Code.NO_CLUSTER
    await agent.start()
    await eventually(lambda: world.is_("lab", Presence.DRAINING))


async def test_where_every_cluster_is_drained_a_start_is_refused_and_not_left_waiting(lab):
    await drain(lab)
    problem = await refusal(lab.create())
    assert problem.code is Code.NO_CLUSTER
    assert problem.detail.startswith("Every cluster that could run this is being drained")


async def test_on_wish_what_runs_there_is_put_to_rest_and_comes_back_afterwards(lab):
    first, second = await lab.running(), await lab.running()
    resting = await lab.running()
    await lab.ask(SessionMethods.HIBERNATE, resting.id)
    await lab.reaches(resting.id, SessionState.HIBERNATED)

    assert (await drain(lab, hibernate=True)).hibernating == 2
    for session in (first, second):
        shown = await lab.reaches(session.id, SessionState.HIBERNATED)
        newest = (await lab.commands(session.id))[0]
        assert newest.actor.name == "olga"
        assert shown.state is SessionState.HIBERNATED
    assert (await drain(lab, hibernate=True)).hibernating == 0

    problem = await refusal(lab.ask(SessionMethods.WAKE, first.id))
    assert problem.code is Code.NO_CLUSTER
    await undrain(lab)
    await lab.ask(SessionMethods.WAKE, first.id)
    await lab.reaches(first.id, SessionState.RUNNING)


async def test_a_session_of_a_drained_cluster_can_be_ended(lab):
    session = await lab.running()
    await drain(lab)
    await lab.delete(session.id)
    await lab.reaches(session.id, SessionState.TERMINATED)


async def test_who_did_it_is_told_once_with_actor_and_address(lab):
    await drain(lab)
    await drain(lab)
    await undrain(lab)
    await undrain(lab)

    async def both() -> bool:
        found = await told(lab, "drained", "undrained")
        assert len(found) == 2
        drained, taken_back = found
        assert isinstance(drained, ClusterDrained)
        assert isinstance(taken_back, ClusterUndrained)
        assert (drained.actor.name, drained.actor.address) == ("olga", "192.0.2.9")
        return True

    await eventually(both)


async def test_users_may_not_and_an_unknown_cluster_is_not_found(lab):
    user = OPERATOR.model_copy(update={"role": Role.USER})
    assert (await refusal(drain(lab, by=user))).code is Code.FORBIDDEN
    assert (await refusal(undrain(lab, by=user))).code is Code.FORBIDDEN
    assert (await refusal(drain(lab, "nowhere"))).code is Code.NOT_FOUND
    assert (await refusal(undrain(lab, "nowhere"))).code is Code.NOT_FOUND
    assert (await lab.cluster("lab")).presence is Presence.ONLINE


async def test_what_waits_for_a_place_goes_elsewhere(world):
    """Created while its cluster's agents restart, placed after that cluster was drained."""
    await world.start()
    await world.template()
    agent = await world.agent()
    agent.draining = True
    await agent.beat()
    await eventually(lambda: world.is_("lab", Presence.DRAINING))
    waiting = (await world.create()).session
    assert waiting.cluster_id is None
    await drain(world)
    agent.draining = False
    await agent.beat()
    await world.agent("east")
    placed = await world.reaches(waiting.id, SessionState.RUNNING)
    assert placed.cluster_id == "east"
    found = await world.call(
        SessionMethods.GET, SessionRequest(principal=world.admin, session_id=waiting.id)
    )
    assert found.state is SessionState.RUNNING
