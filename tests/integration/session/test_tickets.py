"""Tickets open one session's stream, once, soon, and for whom they were given."""

import asyncio

import pytest

from streamspace_common.contracts.catalog import Connection, Protocol
from streamspace_common.contracts.problems import Code, Problem, ProblemError
from streamspace_common.contracts.requests import (
    CheckAdmission,
    ConnectSession,
    RedeemTicket,
    SessionMethods,
)
from streamspace_common.contracts.sessions import SessionState, ViewerRole
from streamspace_common.testing.waiting import eventually


async def connect(world, session, user=None, role=ViewerRole.CONTROL):
    request = ConnectSession(principal=user or world.admin, session_id=session.id, role=role)
    return await world.call(SessionMethods.CONNECT, request)


async def redeem(world, ticket, session):
    return await world.call(
        SessionMethods.REDEEM_TICKET, RedeemTicket(ticket=ticket.ticket, session_id=session.id)
    )


async def refusal(awaitable) -> Problem:
    with pytest.raises(ProblemError) as refused:
        await awaitable
    return refused.value.problem


async def test_a_ticket_opens_its_session_with_its_role(lab):
    session = await lab.running(lab.user("ada"))
    ticket = await connect(lab, session, lab.user("ada"), ViewerRole.VIEW)
    assert len(ticket.ticket) >= 22
    admission = await redeem(lab, ticket, session)
    assert admission.session_id == session.id
    assert admission.username == "ada"
    assert admission.role is ViewerRole.VIEW
    assert admission.cluster_id == "lab"
    assert (admission.protocol, admission.port) == (Protocol.VNC, 5900)


async def test_an_image_is_reached_as_its_template_says(lab):
    web = Connection(protocol=Protocol.HTTP, port=3000, path="/app")
    await lab.template("web", process=False, image="example/web:1", connection=web)
    session = await lab.running(template="web")
    assert session.protocol is Protocol.HTTP
    admission = await redeem(lab, await connect(lab, session), session)
    assert (admission.protocol, admission.port, admission.path) == (Protocol.HTTP, 3000, "/app")


async def test_of_many_who_use_a_ticket_at_once_one_is_let_in(lab):
    session = await lab.running()
    ticket = await connect(lab, session)
    outcomes = await asyncio.gather(
        *(redeem(lab, ticket, session) for _ in range(8)), return_exceptions=True
    )
    refused = [one.problem for one in outcomes if isinstance(one, ProblemError)]
    assert len(refused) == 7
    assert {problem.code for problem in refused} == {Code.TICKET_REFUSED}
    assert {problem.status for problem in refused} == {403}


async def test_a_ticket_is_useless_for_another_session(lab):
    mine, other = await lab.running(lab.user("eve")), await lab.running(lab.user("ada"))
    ticket = await connect(lab, mine, lab.user("eve"))
    assert (await refusal(redeem(lab, ticket, other))).code is Code.TICKET_REFUSED
    assert (await redeem(lab, ticket, mine)).username == "eve"


async def test_a_ticket_expires(world):
    await world.start(ticket_life=0.05)
    await world.template()
    await world.agent()
    session = await world.running()
    ticket = await connect(world, session)
    await asyncio.sleep(0.06)
    problem = await refusal(redeem(world, ticket, session))
    assert problem.code is Code.TICKET_REFUSED
    assert "expired" in problem.detail


async def test_no_ticket_outlives_a_minute(lab):
    session = await lab.running()
    ticket = await connect(lab, session)
    async with lab.replicas[0].service.store.transaction() as tx:
        assert (ticket.expires_at - await tx.now()).total_seconds() <= 60


async def test_tickets_are_kept_as_hashes_only(lab):
    session = await lab.running()
    ticket = await connect(lab, session)
    async with lab.database.transaction() as tx:
        from sqlalchemy import text

        rows = (await tx.execute(text("SELECT tickets::text FROM tickets"))).scalars().all()
    assert rows
    assert all(ticket.ticket not in row for row in rows)


async def test_a_ticket_for_a_session_that_ended_meanwhile_is_refused(lab):
    session = await lab.running()
    ticket = await connect(lab, session)
    await lab.delete(session.id)
    await lab.reaches(session.id, SessionState.TERMINATED)
    assert (await refusal(redeem(lab, ticket, session))).code is Code.WRONG_STATE
    assert (await refusal(redeem(lab, ticket, session))).code is Code.TICKET_REFUSED


async def test_a_live_stream_is_told_when_its_session_ends(lab):
    ada = lab.user("ada")
    session = await lab.running(ada)
    await redeem(lab, await connect(lab, session, ada), session)
    question = CheckAdmission(session_id=session.id, user_id=ada.user_id)
    assert (await lab.call(SessionMethods.CHECK_ADMISSION, question)).allowed
    await lab.delete(session.id)
    await lab.reaches(session.id, SessionState.TERMINATED)
    answer = await lab.call(SessionMethods.CHECK_ADMISSION, question)
    assert not answer.allowed
    assert answer.reason
    assert answer.state is SessionState.TERMINATED


async def test_a_disabled_account_is_let_in_nowhere_until_it_is_enabled_again(lab):
    ada = lab.user("ada")
    session = await lab.running(ada)
    unused = await connect(lab, session, ada)
    question = CheckAdmission(session_id=session.id, user_id=ada.user_id)
    await lab.account(ada, disabled=True)

    async def shut_out():
        return not (await lab.call(SessionMethods.CHECK_ADMISSION, question)).allowed

    await eventually(shut_out)
    assert (await lab.call(SessionMethods.CHECK_ADMISSION, question)).reason
    assert (await refusal(redeem(lab, unused, session))).code is Code.TICKET_REFUSED
    assert (await refusal(connect(lab, session, ada))).code is Code.FORBIDDEN

    await lab.account(ada, disabled=False)

    async def let_in():
        return (await lab.call(SessionMethods.CHECK_ADMISSION, question)).allowed

    await eventually(let_in)
    await redeem(lab, await connect(lab, session, ada), session)


async def test_only_who_was_admitted_or_owns_it_may_go_on_watching(lab):
    session = await lab.running(lab.user("ada"))

    async def allowed(user):
        return (
            await lab.call(
                SessionMethods.CHECK_ADMISSION,
                CheckAdmission(session_id=session.id, user_id=user.user_id),
            )
        ).allowed

    assert await allowed(lab.user("ada"))
    assert not await allowed(lab.user("eve"))
    assert not await allowed(lab.admin)
    await redeem(lab, await connect(lab, session, lab.admin), session)
    assert await allowed(lab.admin)
