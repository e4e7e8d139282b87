"""An agent as a process, and auth: how it gets its credential, keeps it good, and loses it."""

import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.auth.installation import Installation
from tests.support.agent_process import Agent

from streamspace_common.bus import provision
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.requests import AuthMethods, EnrolCluster, RevokeCluster
from streamspace_common.testing.waiting import eventually

LAB = ClusterId("lab")
PATIENCE = 60


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    (tmp_path / "agent").mkdir(mode=0o700)
    one = Agent(tmp_path / "agent")
    yield one
    await one.end(signal.SIGKILL)


@pytest.fixture
async def brief(bare: Installation) -> Installation:
    """Auth that gives credentials of a few seconds."""
    bare.nats.start()
    await provision(await bare.connect("session"))
    bare.gateway = await bare.connect("gateway")
    await bare.replica(agent_credential_lifetime=6)
    bare.admin = await bare.verified(await bare.login("admin", "correct horse battery staple"))
    return bare


async def enrol(auth: Installation, *, replace: bool = False) -> Enrolment:
    return await auth.call(
        AuthMethods.ENROL_CLUSTER,
        EnrolCluster(principal=auth.admin, cluster_id=LAB, replace=replace),
    )


async def beats(auth: Installation) -> list[str]:
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    await (await auth.connect("session")).subscribe("hb.*.*", hear)
    return heard


async def test_an_agent_renews_its_credential_before_it_ends(
    brief: Installation, agent: Agent
) -> None:
    agent.give(await enrol(brief))
    heard = await beats(brief)
    await agent.start()
    await eventually(agent.ready, timeout=PATIENCE)
    await eventually(lambda: agent.said("credential issued") >= 4, timeout=PATIENCE)
    before = len(heard)
    await eventually(lambda: len(heard) > before, timeout=PATIENCE, message="it still beats")
    assert not agent.said("bus.waiting_for_server"), "it was never refused"
    # Neither the enrolment's secret nor its own stands in the log.
    assert not re.search(rb"S[AUO][A-Z2-7]{56}", agent.output)
    assert b"eyJ" not in agent.output


async def test_a_revoked_agent_is_out_says_what_to_do_and_takes_up_a_new_enrolment(
    auth: Installation, agent: Agent
) -> None:
    agent.give(await enrol(auth))
    await agent.start()
    await eventually(agent.ready, timeout=PATIENCE)
    await auth.call(AuthMethods.REVOKE_CLUSTER, RevokeCluster(principal=auth.admin, cluster_id=LAB))
    told = "clusters enrol ID --replace"
    await eventually(lambda: agent.said(told) > 0, timeout=PATIENCE)
    assert not await agent.ready()

    # The same process, a new file.
    agent.give(await enrol(auth, replace=True))
    await eventually(agent.ready, timeout=PATIENCE)

    # And a restart of an agent that holds a credential from before.
    await agent.end()
    newer = await enrol(auth, replace=True)
    await agent.start()
    await eventually(lambda: agent.said(told) > 0, timeout=PATIENCE)
    assert not await agent.ready()
    agent.give(newer)
    await eventually(agent.ready, timeout=PATIENCE)


async def test_while_auth_is_away_an_agent_waits_or_goes_on_with_what_it_has(
    bare: Installation, agent: Agent
) -> None:
    await bare.start()
    agent.give(await enrol(bare))
    await bare.leave()  # every auth
    await agent.start()
    await eventually(lambda: agent.said("waiting for a credential") > 0, timeout=PATIENCE)
    assert not await agent.ready()
    assert agent.said("health"), "probes see that it lives"

    await bare.replica()
    await eventually(agent.ready, timeout=PATIENCE)
    await agent.end()
    await bare.leave()
    await agent.start()
    await eventually(agent.ready, timeout=PATIENCE, message="with the credential of the last time")
    assert agent.said("credential of the last time") == 1
    for path in (agent.folder / "state/identity").iterdir():
        assert path.stat().st_mode & 0o077 == 0
