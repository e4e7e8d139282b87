"""Removing a cluster for good: its account is gone, its name is free, everybody is told."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from tests.integration.auth.installation import Installation

from streamspace_agent.joining import asking
from streamspace_common.bus import CredentialRefusedError, Identity
from streamspace_common.bus.signing import claims_of
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.events import ClusterEnrolled, ClusterRemoved
from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.problems import Code, Problem, ProblemError
from streamspace_common.contracts.requests import (
    AuthMethods,
    EnrolCluster,
    ForgetCluster,
    RevokeCluster,
)
from streamspace_common.runtime.proxies import Proxies

LAB, OTHER = ClusterId("lab"), ClusterId("other")


async def enrol(auth: Installation, cluster: ClusterId = LAB, **fields: Any) -> Enrolment:
    return await auth.call(
        AuthMethods.ENROL_CLUSTER,
        EnrolCluster(principal=auth.admin, cluster_id=cluster, **fields),
    )


async def revoke(auth: Installation, cluster: ClusterId = LAB) -> None:
    await auth.call(
        AuthMethods.REVOKE_CLUSTER, RevokeCluster(principal=auth.admin, cluster_id=cluster)
    )


async def remove(auth: Installation, cluster: ClusterId = LAB, **fields: Any) -> None:
    given = {"principal": auth.admin, "cluster_id": cluster, "address": "192.0.2.9"}
    await auth.call(AuthMethods.REMOVE_CLUSTER, ForgetCluster(**given | fields))


async def credential(enrolment: Enrolment) -> Identity:
    identity = Identity.fresh()
    ask = asking("one", None, Proxies())
    identity.token = (await ask(enrolment, identity.public_key)).token
    return identity


async def refused(code: Code, attempt: Awaitable[object]) -> Problem:
    with pytest.raises(ProblemError) as caught:
        await attempt
    assert caught.value.problem.code is code
    return caught.value.problem


async def account_of(auth: Installation, cluster: ClusterId) -> str | None:
    rows = await auth.sql("SELECT account FROM clusters WHERE id = $1", cluster)
    return rows[0]["account"] if rows else None


async def test_its_account_is_gone_and_its_removal_told(auth: Installation) -> None:
    old = await enrol(auth)
    await enrol(auth, OTHER)
    account = await account_of(auth, LAB)
    assert account
    await revoke(auth)
    await remove(auth)
    (told,) = await auth.events(ClusterRemoved)
    assert (told.cluster_id, told.actor.id) == (LAB, auth.admin.user_id)
    assert told.actor.address == "192.0.2.9"
    assert await account_of(auth, LAB) is None
    kept = await auth.sql("SELECT account, token FROM bus_accounts")
    assert account not in {row["account"] for row in kept}
    with pytest.raises(CredentialRefusedError):
        await credential(old)
    assert await account_of(auth, OTHER) is not None


async def test_the_control_planes_account_is_the_same_whatever_clusters_there_are(
    auth: Installation,
) -> None:
    """A new token would cost all agents their open requests for commands."""
    await enrol(auth)
    before = await token_of_core(auth)
    await enrol(auth, OTHER)
    await enrol(auth, replace=True)
    await revoke(auth)
    await remove(auth)
    assert await token_of_core(auth) == before


async def token_of_core(auth: Installation) -> str:
    kept = await auth.sql("SELECT token FROM bus_accounts")
    (token,) = (row["token"] for row in kept if claims_of(row["token"])["name"] == "CORE")
    assert isinstance(token, str)
    return token


async def test_one_whose_agents_are_let_in_is_not_removed(auth: Installation) -> None:
    enrolment = await enrol(auth)
    problem = await refused(Code.WRONG_STATE, remove(auth))
    assert "revoke its access, then remove it" in problem.detail
    assert (await credential(enrolment)).token


async def test_its_name_is_free_at_once_and_brings_another_account(auth: Installation) -> None:
    old = await enrol(auth, name="The old lab")
    account = await account_of(auth, LAB)
    await revoke(auth)
    await remove(auth)
    new = await enrol(auth)
    assert await account_of(auth, LAB) != account
    first, second = await auth.events(ClusterEnrolled, 2)
    assert (first.name, second.name, second.replaced) == ("The old lab", "lab", False)
    assert (await credential(new)).token
    with pytest.raises(CredentialRefusedError):
        await credential(old)


async def test_only_an_admin_removes_and_only_what_there_is(auth: Installation) -> None:
    await enrol(auth)
    await revoke(auth)
    _, operator = await auth.signed_in("ada", Role.OPERATOR)
    await refused(Code.FORBIDDEN, remove(auth, principal=operator))
    await refused(Code.NOT_FOUND, remove(auth, OTHER))


async def test_what_only_the_list_knows_is_told_as_removed(auth: Installation) -> None:
    """Auth's database was restored, or a removal was asked for twice."""
    await remove(auth, OTHER, listed=True)
    (told,) = await auth.events(ClusterRemoved)
    assert told.cluster_id == OTHER


async def test_a_removal_and_an_enrolment_at_once_come_out_as_one_after_the_other(
    auth: Installation,
) -> None:
    await enrol(auth)
    await revoke(auth)
    outcomes = await asyncio.gather(remove(auth), enrol(auth, replace=True), return_exceptions=True)
    gone, enrolled = (not isinstance(outcome, BaseException) for outcome in outcomes)
    assert enrolled
    if not gone:
        assert isinstance(outcomes[0], ProblemError)
        assert outcomes[0].problem.code is Code.WRONG_STATE
    assert await account_of(auth, LAB) is not None
