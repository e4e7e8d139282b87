"""Commands that gave up: moved to the dead letters once, seen, retried or discarded."""

import contextlib

import nats
import pytest

from streamspace_common.bus import StartAt
from streamspace_common.contracts.dead_letters import DeadLetterCause, DeadLetterState
from streamspace_common.contracts.events import (
    CommandDied,
    DeadLetterDiscarded,
    DeadLetterRetried,
)
from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    DeadLetterRequest,
    ListDeadLetters,
    SessionMethods,
)
from streamspace_common.contracts.sessions import Reason, SessionCommandState, SessionState
from streamspace_common.testing.waiting import eventually

EVERY = tuple(DeadLetterState)


async def letters(world, **filters):
    asked = ListDeadLetters(principal=world.admin, **filters)
    return (await world.call(SessionMethods.LIST_DEAD_LETTERS, asked)).items


async def one_letter(world, **filters):
    found = []

    async def there():
        found[:] = await letters(world, **filters)
        assert len(found) == 1, found
        return True

    await eventually(there, message="one dead letter")
    return found[0]


async def retry(world, letter, user=None):
    request = DeadLetterRequest(principal=user or world.admin, letter_id=letter.id)
    return await world.call(SessionMethods.RETRY_DEAD_LETTER, request)


async def discard(world, letter, user=None):
    request = DeadLetterRequest(
        principal=user or world.admin, address="192.0.2.9", letter_id=letter.id
    )
    return await world.call(SessionMethods.DISCARD_DEAD_LETTER, request)


async def copies(world, count):
    """What the dead letter stream holds, once it is so many messages."""
    await eventually(lambda: at_least(world, count), timeout=20, message=f"{count} messages in DLQ")
    found = []
    async with contextlib.aclosing(
        world.bus.tail("DLQ", ["dlq.>"], start=StartAt.all())
    ) as messages:
        async for message in messages:
            found.append(message)
            if message.sequence == count:
                break
    return found


async def at_least(world, count):
    assert await world.bus.last_sequence("DLQ") == count
    return True


async def failing_start(world, reason=Reason.NO_SPACE):
    [agent] = world.agents
    agent.failing["start_session"] = reason
    accepted = await world.create()
    await world.reaches(accepted.session.id, SessionState.FAILED)
    return agent, accepted


async def test_a_command_its_agent_refused_is_a_dead_letter_with_all_that_is_known(lab):
    _, accepted = await failing_start(lab)
    letter = await one_letter(lab)
    assert letter.id == f"{accepted.command_id}.1"
    assert (letter.session_id, letter.cluster_id) == (accepted.session.id, "lab")
    assert (letter.action, letter.generation, letter.attempt) == ("start_session", 1, 1)
    assert letter.cause is DeadLetterCause.TERMINATED
    assert letter.reason == "no-space, as told."
    assert letter.origin_stream == "COMMANDS"

    [copy] = await copies(lab, 1)
    letter = await one_letter(lab)
    assert (letter.deliveries, letter.consumer) == (1, "agent-lab")
    assert copy.subject == f"dlq.lab.{accepted.session.id}"
    assert copy.type == "session.start.v1"
    assert copy.headers["Nats-Msg-Id"] == f"dlq-COMMANDS-{letter.origin_sequence}"
    assert copy.headers["ce-id"] == letter.id
    assert copy.headers["x-cause"] == "terminated"
    assert copy.headers["x-reason"] == "no-space, as told."
    assert copy.headers["x-deliveries"] == "1"
    assert copy.headers["x-consumer"] == "agent-lab"
    assert copy.headers["x-origin-stream"] == "COMMANDS"
    assert copy.headers["x-origin-sequence"] == str(letter.origin_sequence)
    [died] = [e for e in await lab.history(accepted.session.id) if isinstance(e, CommandDied)]
    assert died.letter.id == letter.id


async def test_a_retried_start_starts_the_failed_session_again(lab):
    agent, accepted = await failing_start(lab)
    letter = await one_letter(lab)
    agent.failing.clear()
    operator = lab.user("olga", Role.OPERATOR)

    answer = await retry(lab, letter, operator)
    assert answer.session.state is SessionState.PENDING
    assert answer.letter.state is DeadLetterState.RETRIED
    assert answer.letter.settled_by.name == "olga"
    assert answer.letter.retried_as == answer.command_id
    await lab.reaches(accepted.session.id, SessionState.RUNNING)

    newest, *_ = await lab.commands(accepted.session.id)
    assert (newest.id, newest.actor.name) == (answer.command_id, "olga")
    assert not await letters(lab)
    told = [e for e in await lab.history(accepted.session.id) if isinstance(e, DeadLetterRetried)]
    assert [event.actor.name for event in told] == ["olga"]
    with pytest.raises(ProblemError, match="retried already") as refused:
        await retry(lab, letter)
    assert refused.value.problem.code is Code.CONFLICT


async def test_a_discarded_letter_is_settled_and_audited(lab):
    _, accepted = await failing_start(lab)
    letter = await one_letter(lab)
    settled = await discard(lab, letter)
    assert (settled.state, settled.settled_by.address) == (DeadLetterState.DISCARDED, "192.0.2.9")
    assert not await letters(lab)
    assert [found.id for found in await letters(lab, states=EVERY)] == [letter.id]

    async def told():
        events = await lab.history(accepted.session.id)
        found = [e for e in events if isinstance(e, DeadLetterDiscarded)]
        assert len(found) == 1
        [event] = found
        assert (event.actor.name, event.actor.address) == ("admin", "192.0.2.9")
        return True

    await eventually(told, message="the discarding is told")


async def test_retrying_makes_no_sense_once_the_session_has_ended(lab):
    _, accepted = await failing_start(lab)
    letter = await one_letter(lab)
    await lab.delete(accepted.session.id)
    await lab.reaches(accepted.session.id, SessionState.TERMINATED)
    with pytest.raises(ProblemError, match="has ended") as refused:
        await retry(lab, letter)
    assert refused.value.problem.status == 409
    assert (await one_letter(lab)).state is DeadLetterState.OPEN


async def test_only_operators_see_and_settle_dead_letters(lab):
    await failing_start(lab)
    letter = await one_letter(lab)
    user = lab.user("ulla")
    for asked in (
        lab.call(SessionMethods.LIST_DEAD_LETTERS, ListDeadLetters(principal=user)),
        retry(lab, letter, user),
        discard(lab, letter, user),
    ):
        with pytest.raises(ProblemError) as refused:
            await asked
        assert refused.value.problem.code is Code.FORBIDDEN


async def test_an_unknown_letter_is_not_found(lab):
    with pytest.raises(ProblemError) as refused:
        await lab.call(
            SessionMethods.RETRY_DEAD_LETTER,
            DeadLetterRequest(principal=lab.admin, letter_id="cmd-00000000.1"),
        )
    assert refused.value.problem.code is Code.NOT_FOUND


async def test_letters_are_paged_and_filtered(lab):
    [agent] = lab.agents
    agent.failing["start_session"] = Reason.NO_SPACE
    made = [(await lab.create()).session.id for _ in range(5)]
    for session in made:
        await lab.reaches(session, SessionState.FAILED)
    asked = ListDeadLetters(principal=lab.admin, limit=2)
    seen = []
    while True:
        page = await lab.call(SessionMethods.LIST_DEAD_LETTERS, asked)
        seen += [letter.session_id for letter in page.items]
        if page.next_cursor is None:
            break
        asked = asked.model_copy(update={"cursor": page.next_cursor})
    assert sorted(seen) == sorted(made)
    assert [one.session_id for one in await letters(lab, session_id=made[0])] == [made[0]]
    assert len(await letters(lab, cluster_id="lab")) == 5
    assert not await letters(lab, cluster_id="other")


async def test_what_no_agent_can_read_is_moved_too_and_cannot_be_retried(lab):
    await lab.bus.publish("cmd.lab.nobody-1", b"{not a command", {"ce-type": "session.start.v9"})
    letter = await one_letter(lab)
    assert (letter.command_id, letter.action) == (None, None)
    [copy] = await copies(lab, 1)
    assert copy.payload == b"{not a command"
    assert copy.headers["ce-type"] == "session.start.v9"
    assert copy.subject == "dlq.lab.nobody-1"
    with pytest.raises(ProblemError, match="Discard it"):
        await retry(lab, letter)
    await discard(lab, letter)


async def test_a_refusal_without_a_report_is_sent_again_until_the_session_fails(world):
    await world.start(starting_limit=0.5, pending_limit=0.5)
    await world.template()
    agent = await world.agent(refusing={"start_session": "I will not"})
    accepted = await world.create()
    failed = await world.reaches(accepted.session.id, SessionState.FAILED)
    assert failed.reason is Reason.DEADLINE_EXCEEDED
    assert len([c for c in agent.commands if c.action == "start_session"]) == 3

    async def settled():
        found = await letters(world, states=EVERY)
        by_attempt = {letter.attempt: letter.state for letter in found}
        assert by_attempt == {
            1: DeadLetterState.RETRIED,
            2: DeadLetterState.RETRIED,
            3: DeadLetterState.OPEN,
        }
        return True

    await eventually(settled, message="the attempts before the last are answered")
    sent = await copies(world, 3)
    assert {copy.headers["x-attempt"] for copy in sent} == {"1", "2", "3"}


async def test_a_command_the_control_plane_gave_up_is_a_dead_letter(world):
    await world.start(starting_limit=0.3, pending_limit=0.3, max_attempts=1)
    await world.template()
    await world.agent(deaf_to={"start_session"})
    accepted = await world.create()
    await world.reaches(accepted.session.id, SessionState.FAILED)
    letter = await one_letter(world)
    assert letter.cause is DeadLetterCause.GAVE_UP
    assert "did not confirm start_session" in letter.reason
    [copy] = await copies(world, 1)
    assert copy.headers["x-cause"] == "gave-up"


async def test_a_command_nobody_acknowledges_is_moved_after_its_last_delivery(world):
    await world.start(offline_after=60)
    await world.template()
    agent = await world.agent()
    await agent.stop()
    accepted = await world.create()
    await world.sent(accepted.session.id, "start_session")
    # An agent that crashes each time: it takes the command and never settles it.
    client = await nats.connect(world.nats.url)
    try:
        pull = await client.jetstream().pull_subscribe_bind("agent-lab", stream="COMMANDS")
        for _ in range(8):
            [message] = await pull.fetch(1, timeout=5)
            await message.nak()
        # The next one who asks makes the server count; otherwise its `ack_wait` would.
        with contextlib.suppress(nats.errors.TimeoutError):
            await pull.fetch(1, timeout=1)
        letter = await one_letter(world)
    finally:
        await client.close()
    assert letter.cause is DeadLetterCause.MAX_DELIVERIES
    assert letter.deliveries == 8
    assert letter.reason == "It was delivered 8 times and never acknowledged."
    [copy] = await copies(world, 1)
    assert copy.headers["ce-id"] == f"{accepted.command_id}.1"

    answer = await retry(world, letter)
    assert answer.command_id == accepted.command_id
    await agent.start(inventory=False)
    await world.reaches(accepted.session.id, SessionState.RUNNING)
    [command] = await world.commands(accepted.session.id)
    assert (command.attempt, command.state) == (2, SessionCommandState.COMPLETED)


async def test_advisories_wait_for_a_service_that_is_away(lab):
    [agent] = lab.agents
    agent.refusing["start_session"] = "no"
    await lab.stop_service()
    await lab.bus.publish("cmd.lab.nobody-2", b"{", {})
    await eventually(lambda: lag(lab), message="the agent has refused it")
    await lab.start()
    letter = await one_letter(lab)
    assert letter.session_id == "nobody-2"
    await copies(lab, 1)


async def lag(world):
    assert await world.bus.last_sequence("ADVISORIES") == 1
    return True


async def test_a_copy_is_sent_once_however_often_the_advisory_comes(lab):
    await lab.bus.publish("cmd.lab.nobody-3", b"{", {})
    letter = await one_letter(lab)
    await copies(lab, 1)
    [held] = [
        message async for message in first(lab.bus.tail("ADVISORIES", [], start=StartAt.all()))
    ]
    await lab.bus.publish(held.subject, held.payload, {})
    await lab.bus.publish("cmd.lab.nobody-4", b"{", {})

    async def both():
        found = await letters(lab)
        assert len(found) == 2
        return True

    await eventually(both, message="the second letter")
    sent = await copies(lab, 2)
    assert [copy.subject for copy in sent] == ["dlq.lab.nobody-3", "dlq.lab.nobody-4"]
    assert letter.id in {one.id for one in await letters(lab)}


async def first(messages):
    async with contextlib.aclosing(messages) as stream:
        async for message in stream:
            yield message
            break
