"""What is refused, and how; what is promised to a caller who asks twice."""

import asyncio

import pytest

from streamspace_common.contracts.catalog import ResourceAmounts
from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.ids import new_command_id
from streamspace_common.contracts.problems import Code, Problem, ProblemError
from streamspace_common.contracts.requests import (
    ListRuntimes,
    ListSessions,
    ResourceRequest,
    SessionMethods,
    SessionRequest,
)
from streamspace_common.contracts.sessions import SessionState


async def refused(awaitable) -> Problem:
    with pytest.raises(ProblemError) as refusal:
        await awaitable
    return refusal.value.problem


@pytest.mark.parametrize(
    "method",
    [
        SessionMethods.GET,
        SessionMethods.DELETE,
        SessionMethods.HIBERNATE,
        SessionMethods.WAKE,
        SessionMethods.CONNECT,
        SessionMethods.KEEPALIVE,
        SessionMethods.COMMANDS,
    ],
    ids=lambda method: method.name,
)
async def test_a_foreign_session_does_not_exist(lab, method):
    session = await lab.running(lab.user("ada"))
    problem = await refused(
        lab.call(method, method.request(principal=lab.user("eve"), session_id=session.id))
    )
    assert problem.status == 404
    assert problem.code is Code.NOT_FOUND


async def test_operators_see_and_delete_everybodys_sessions(lab):
    session = await lab.running(lab.user("ada"))
    operator = lab.user("op", Role.OPERATOR)
    page = await lab.call(SessionMethods.LIST, ListSessions(principal=operator, everyone=True))
    assert [one.id for one in page.items] == [session.id]
    await lab.delete(session.id, operator)
    await lab.reaches(session.id, SessionState.TERMINATED)


async def test_a_user_may_not_list_everybodys_sessions(lab):
    ada, eve = lab.user("ada"), lab.user("eve")
    for query in (
        ListSessions(principal=eve, everyone=True),
        ListSessions(principal=eve, owner_id=ada.user_id),
    ):
        assert (await refused(lab.call(SessionMethods.LIST, query))).code is Code.FORBIDDEN


async def test_pages_hold_every_session_once_newest_first(lab):
    created = [(await lab.create()).session.id for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = await lab.call(
            SessionMethods.LIST, ListSessions(principal=lab.admin, limit=3, cursor=cursor)
        )
        seen += [one.id for one in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == list(reversed(created))


@pytest.mark.parametrize("cursor", ["", "nonsense", "////", "MjAyNg", "\x00"])
async def test_a_bad_cursor_is_refused(lab, cursor):
    problem = await refused(
        lab.call(SessionMethods.LIST, ListSessions(principal=lab.admin, cursor=cursor))
    )
    assert problem.code is Code.INVALID_REQUEST


async def test_ended_sessions_are_history_and_listed_on_request_only(lab):
    session = await lab.running()
    await lab.delete(session.id)
    await lab.reaches(session.id, SessionState.TERMINATED)
    usual = await lab.call(SessionMethods.LIST, ListSessions(principal=lab.admin))
    asked = await lab.call(
        SessionMethods.LIST, ListSessions(principal=lab.admin, include_final=True)
    )
    assert usual.items == ()
    assert [one.id for one in asked.items] == [session.id]


@pytest.mark.parametrize("name", ["nothing", "starter_nothing", "with\x00nul"])
async def test_an_unknown_template_is_not_found(lab, name):
    assert (await refused(lab.create(template=name))).code is Code.NOT_FOUND


async def test_a_template_goes_by_its_name_where_only_one_catalog_has_it(lab):
    accepted = await lab.create(template="desktop")
    assert accepted.session.template_id == "starter_desktop"


async def test_an_ambiguous_name_lists_the_ids(lab):
    await lab.template(catalog="other")
    problem = await refused(lab.create(template="desktop"))
    assert problem.code is Code.TEMPLATE_AMBIGUOUS
    assert "starter_desktop" in problem.detail
    assert "other_desktop" in problem.detail


async def test_an_unusable_template_says_why(lab):
    await lab.template("broken", unusable="its image has no port")
    problem = await refused(lab.create(template="broken"))
    assert problem.code is Code.TEMPLATE_UNUSABLE
    assert "its image has no port" in problem.detail


async def test_a_manifest_too_large_for_a_command_is_unusable(lab):
    await lab.template("huge", description="x" * 50_000)
    problem = await refused(lab.create(template="huge"))
    assert problem.code is Code.TEMPLATE_UNUSABLE
    assert "bytes" in problem.detail


async def test_a_session_keeps_the_manifest_it_started_from(lab):
    session = await lab.running()
    await lab.template(description="another edition")
    await lab.ask(SessionMethods.HIBERNATE, session.id)
    await lab.reaches(session.id, SessionState.HIBERNATED)
    hibernate = lab.agents[0].commands[-1]
    assert hibernate.spec.template_digest == session.template_digest
    assert hibernate.spec.template_manifest.spec.description == ""


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        (ResourceRequest(cpu="lots"), "/resources/cpu"),
        (ResourceRequest(cpu="-1"), "/resources/cpu"),
        (ResourceRequest(cpu="1m"), "/resources/cpu"),
        (ResourceRequest(memory="1Zi"), "/resources/memory"),
        (ResourceRequest(memory="512m"), "/resources/memory"),
        (ResourceRequest(memory="9999Ei"), "/resources/memory"),
    ],
)
async def test_a_bad_quantity_names_its_field(lab, asked, pointer):
    problem = await refused(lab.create(resources=asked))
    assert problem.code is Code.INVALID_REQUEST
    assert [error.pointer for error in problem.errors] == [pointer]


async def test_resources_left_out_are_the_templates(lab):
    accepted = await lab.create(resources=ResourceRequest(cpu="2"))
    assert accepted.session.resources.cpu == "2"
    assert accepted.session.resources.memory == "512Mi"


async def test_a_template_with_a_bad_default_can_be_started_with_resources_of_ones_own(lab):
    await lab.template("odd", resources=ResourceAmounts(cpu="many", memory="1Gi"))
    problem = await refused(lab.create(template="odd"))
    assert problem.code is Code.TEMPLATE_UNUSABLE
    accepted = await lab.create(template="odd", resources=ResourceRequest(cpu="1"))
    assert accepted.session.state is SessionState.PENDING


async def test_a_wrong_state_says_what_to_do(lab):
    session = await lab.running()
    wake = await refused(lab.ask(SessionMethods.WAKE, session.id))
    assert wake.code is Code.WRONG_STATE
    assert "runs already" in wake.detail
    await lab.ask(SessionMethods.HIBERNATE, session.id)
    await lab.reaches(session.id, SessionState.HIBERNATED)
    connect = await refused(
        lab.call(
            SessionMethods.CONNECT,
            SessionMethods.CONNECT.request(principal=lab.admin, session_id=session.id),
        )
    )
    assert "wake it first" in connect.detail


async def test_the_same_key_gives_the_same_session_even_at_once(lab):
    answers = await asyncio.gather(*(lab.create(idempotency_key="k1") for _ in range(8)))
    assert len({answer.session.id for answer in answers}) == 1
    assert len({answer.command_id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    page = await lab.call(SessionMethods.LIST, ListSessions(principal=lab.admin))
    assert len(page.items) == 1


async def test_a_key_is_good_for_one_request_of_one_user(lab):
    first = await lab.create(idempotency_key="k1")
    problem = await refused(lab.create(idempotency_key="k1", persistent_home=False))
    assert problem.code is Code.IDEMPOTENCY_CONFLICT
    others = await lab.create(lab.user("ada"), idempotency_key="k1")
    assert others.session.id != first.session.id


async def test_a_refused_request_does_not_use_its_key_up(lab):
    await refused(lab.create(template="nothing", idempotency_key="k1"))
    assert not (await lab.create(idempotency_key="k1")).replayed


async def test_quota_holds_against_requests_at_once(world):
    await world.start(quota_sessions=3)
    await world.template()
    await world.agent()
    ada = world.user("ada")
    answers = await asyncio.gather(*(world.create(ada) for _ in range(12)), return_exceptions=True)
    accepted = [one for one in answers if not isinstance(one, BaseException)]
    problems = [one.problem for one in answers if isinstance(one, ProblemError)]
    assert len(accepted) == 3
    assert {problem.code for problem in problems} == {Code.QUOTA_EXCEEDED}
    assert len(problems) == 9
    assert (await world.create(world.user("bob"))).session.state is SessionState.PENDING

    await world.reaches(accepted[0].session.id, SessionState.RUNNING)
    await world.delete(accepted[0].session.id, ada)
    await world.reaches(accepted[0].session.id, SessionState.TERMINATED)
    assert (await world.create(ada)).session.state is SessionState.PENDING


@pytest.mark.parametrize(
    ("limit", "word"), [({"quota_cpu": "1"}, "CPU"), ({"quota_memory": "1Gi"}, "memory")]
)
async def test_quotas_count_cpu_and_memory_of_hibernated_sessions_too(world, limit, word):
    await world.start(**limit)
    await world.template()
    await world.agent()
    session = await world.running()
    await world.ask(SessionMethods.HIBERNATE, session.id)
    await world.reaches(session.id, SessionState.HIBERNATED)
    await world.create()
    problem = await refused(world.create())
    assert problem.code is Code.QUOTA_EXCEEDED
    assert word in problem.detail


async def test_a_home_in_use_by_another_session_is_not_deleted(lab):
    first, second = await lab.running(), await lab.running()
    problem = await refused(lab.delete(first.id, delete_home=True))
    assert problem.code is Code.CONFLICT
    await lab.delete(second.id)
    await lab.reaches(second.id, SessionState.TERMINATED)
    await lab.delete(first.id, delete_home=True)
    await lab.reaches(first.id, SessionState.TERMINATED)
    assert lab.agents[0].commands[-1].delete_home


async def test_keepalive_tells_when_the_session_ends(lab):
    accepted = await lab.create(idle_timeout=600, max_duration=3600)
    running = await lab.reaches(accepted.session.id, SessionState.RUNNING)
    kept = await lab.call(
        SessionMethods.KEEPALIVE, SessionRequest(principal=lab.admin, session_id=running.id)
    )
    assert (kept.idle_deadline - kept.last_activity_at).total_seconds() == 600
    assert (kept.expires_at - running.started_at).total_seconds() == 3600


async def test_every_user_may_know_which_runtimes_there_are(lab):
    answer = await lab.call(SessionMethods.LIST_RUNTIMES, ListRuntimes(principal=lab.user("ada")))
    assert answer.items == answer.live
    assert len(answer.items) == 1


async def test_an_id_given_before_is_no_error_but_another_try(lab, monkeypatch):
    taken = await lab.running()
    used = (await lab.commands(taken.id))[0].id
    for module in ("creation", "moves"):
        target = f"streamspace_session.domain.{module}.new_command_id"
        ids = iter([used, used])
        monkeypatch.setattr(target, lambda ids=ids: next(ids, None) or new_command_id())
    created = await lab.create()
    assert created.command_id != used
    assert (await lab.delete(taken.id)).command_id != used
    await lab.reaches(taken.id, SessionState.TERMINATED)
