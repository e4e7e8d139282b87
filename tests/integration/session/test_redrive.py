"""Driving a cluster anew: every living session's newest command is sent once more."""

import pytest

from streamspace_common.contracts.events import SessionCommandChanged
from streamspace_common.contracts.identity import Principal, Role
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import RedriveCluster, SessionMethods
from streamspace_common.contracts.sessions import SessionCommandState, SessionState
from streamspace_common.testing.waiting import eventually


def request(role: Role = Role.ADMIN, cluster: str = "lab") -> RedriveCluster:
    root = Principal(user_id="usr-" + "1" * 32, username="root", role=role)
    return RedriveCluster(principal=root, cluster_id=cluster)


async def test_living_sessions_are_told_again_and_stay_as_they_are(world):
    await world.start(inventory_grace=10)
    await world.template()
    agent = await world.agent()
    running, resting, ended = [await world.running() for _ in range(3)]
    await world.ask(SessionMethods.HIBERNATE, resting.id)
    await world.reaches(resting.id, SessionState.HIBERNATED)
    await world.delete(ended.id)
    await world.reaches(ended.id, SessionState.TERMINATED)
    stopped = agent.actions(ended.id)

    driven = await world.bus.call(SessionMethods.REDRIVE_CLUSTER, request())
    assert driven.commands == 2

    async def told() -> bool:
        for session, action in ((running, "start_session"), (resting, "hibernate_session")):
            newest = (await world.commands(session.id))[0]
            assert (newest.action, newest.attempt) == (action, 2)
            assert newest.state is SessionCommandState.COMPLETED
        return True

    await eventually(told)
    assert (await world.get(running.id)).state is SessionState.RUNNING
    assert (await world.get(resting.id)).state is SessionState.HIBERNATED
    assert agent.actions(ended.id) == stopped
    again = [
        event
        for event in await world.history(running.id)
        if isinstance(event, SessionCommandChanged) and event.command.attempt == 2
    ]
    assert again[0].actor.name == "root"


@pytest.mark.parametrize("role", [Role.USER, Role.OPERATOR])
async def test_only_administrators_may(world, role):
    await world.start()
    with pytest.raises(ProblemError) as refused:
        await world.bus.call(SessionMethods.REDRIVE_CLUSTER, request(role))
    assert refused.value.problem.code is Code.FORBIDDEN


async def test_a_cluster_nobody_knows_is_not_found(world):
    await world.start()
    with pytest.raises(ProblemError) as refused:
        await world.bus.call(SessionMethods.REDRIVE_CLUSTER, request(cluster="nowhere"))
    assert refused.value.problem.code is Code.NOT_FOUND
