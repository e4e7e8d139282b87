"""What users and the control plane do to a session, step by step."""

from dataclasses import replace

import pytest

from streamspace_common.contracts.catalog import Connection, Protocol, RuntimeKind
from streamspace_common.contracts.commands import StartSession, StopSession
from streamspace_common.contracts.events import SessionStateChanged
from streamspace_common.contracts.sessions import (
    DesiredState,
    Owner,
    Reason,
    SessionCommandState,
    SessionState,
)
from streamspace_session import domain
from streamspace_session.domain import Action, IllegalTransitionError
from streamspace_session.policy.letters import given_up

S = SessionState


def arguments(sessions):
    return {"actor": sessions.actor, "now": sessions.now, "timing": sessions.timing}


def test_a_new_session_waits_with_its_first_command(sessions):
    tracked = sessions.new()
    assert tracked.state is S.PENDING
    assert tracked.session.desired is DesiredState.RUNNING
    assert tracked.order.generation == tracked.session.generation == 1
    assert tracked.session.deadline == sessions.now + sessions.timing.pending


def test_each_new_command_takes_the_next_generation_and_supersedes_the_open_one(sessions):
    starting = sessions.in_state(S.STARTING)
    change = domain.delete(starting, **arguments(sessions))
    assert change.after.session.generation == 2
    assert change.after.order.action is Action.STOP
    assert change.replaced.id == starting.order.id
    assert change.replaced.state is SessionCommandState.SUPERSEDED
    assert change.sends_command


def test_a_change_of_state_is_told_once_with_the_session_after_it(sessions):
    change = domain.hibernate(sessions.in_state(S.RUNNING), **arguments(sessions))
    (told,) = change.events
    assert isinstance(told, SessionStateChanged)
    assert (told.from_state, told.to_state) == (S.RUNNING, S.HIBERNATING)
    assert told.session == change.after.session
    assert told.actor == sessions.actor
    assert told.command_id == change.after.order.id


@pytest.mark.parametrize("state", sorted(set(S) - {S.RUNNING}))
def test_only_what_runs_can_hibernate(sessions, state):
    with pytest.raises(IllegalTransitionError):
        domain.hibernate(sessions.in_state(state), **arguments(sessions))


@pytest.mark.parametrize("state", sorted(set(S) - {S.HIBERNATED}))
def test_only_what_is_hibernated_can_wake(sessions, state):
    with pytest.raises(IllegalTransitionError):
        domain.wake(sessions.in_state(state), **arguments(sessions))


@pytest.mark.parametrize("state", list(S))
def test_everything_can_be_deleted(sessions, state):
    change = domain.delete(sessions.in_state(state), **arguments(sessions))
    assert change.after.state in {S.TERMINATING, S.TERMINATED}
    assert change.is_empty == (state in {S.TERMINATING, S.TERMINATED})


@pytest.mark.parametrize("state", [S.PENDING, S.FAILED])
def test_deleting_what_no_cluster_knows_ends_it_at_once(sessions, state):
    change = domain.delete(sessions.in_state(state, cluster=None), **arguments(sessions))
    assert change.after.state is S.TERMINATED
    assert change.after.session.terminated_at == sessions.now
    assert not change.sends_command


def test_a_deletion_remembers_whether_the_home_goes_too(sessions):
    change = domain.delete(sessions.in_state(S.RUNNING), **arguments(sessions), delete_home=True)
    message = domain.command_message(change.after, None)
    assert isinstance(message, StopSession)
    assert message.delete_home


@pytest.mark.parametrize("state", [S.PENDING, S.STARTING, S.RUNNING, S.WAKING, S.UNKNOWN])
def test_a_failure_is_cleaned_up_after(sessions, state):
    tracked = sessions.in_state(state, order=SessionCommandState.ACKNOWLEDGED)
    change = domain.fail(tracked, Reason.LOST, "gone", now=sessions.now, timing=sessions.timing)
    assert change.after.state is S.FAILED
    assert change.after.order.action is Action.STOP
    assert change.sends_command
    assert change.replaced.state is SessionCommandState.FAILED
    assert change.replaced.error == "gone"


def test_a_failure_without_a_cluster_has_nobody_to_tell(sessions):
    change = domain.fail(
        sessions.in_state(S.PENDING, cluster=None),
        Reason.CLUSTER_OFFLINE,
        "nobody came",
        now=sessions.now,
        timing=sessions.timing,
    )
    assert change.after.order.state is SessionCommandState.FAILED
    assert not change.sends_command


def test_a_new_attempt_keeps_id_and_generation(sessions):
    tracked = sessions.in_state(S.STARTING)
    change = domain.reissue(tracked, now=sessions.later(minutes=5), timing=sessions.timing)
    assert change.after.order.id == tracked.order.id
    assert change.after.order.attempt == 2
    assert change.after.order.state is SessionCommandState.PENDING
    assert change.after.session.generation == tracked.session.generation
    assert change.after.session.deadline == sessions.later(minutes=10)
    assert change.sends_command
    assert [attempt.attempt for attempt in change.after.order.attempts] == [1, 2]
    [told] = change.events
    assert told.command.attempt == 2


def test_a_restart_is_a_new_start(sessions):
    tracked = sessions.in_state(S.RUNNING)
    change = domain.restart(tracked, now=sessions.now, timing=sessions.timing)
    assert change.after.state is S.STARTING
    assert change.after.restarts == 1
    assert change.after.order.action is Action.START
    assert change.after.session.generation == 2
    assert change.after.session.phases == ()


def test_losing_sight_keeps_the_command_and_sends_nothing(sessions):
    tracked = sessions.in_state(S.HIBERNATING)
    change = domain.lose_sight(tracked, now=sessions.now, timing=sessions.timing)
    assert change.after.state is S.UNKNOWN
    assert change.after.order == tracked.order
    assert not change.sends_command


def test_placing_sends_the_command_that_has_waited(sessions):
    waiting = sessions.new(cluster=None)
    change = domain.place(
        waiting, "lab", Protocol.VNC, now=sessions.later(minutes=1), timing=sessions.timing
    )
    assert change.sends_command
    assert change.after.order.id == waiting.order.id
    assert change.after.session.deadline == sessions.later(minutes=11)


def test_a_start_message_holds_the_whole_spec(sessions):
    tracked = sessions.new()
    message = domain.command_message(tracked, sessions.manifest())
    assert isinstance(message, StartSession)
    assert message.spec.home == "ada-ada0ada0"
    assert message.spec.template_digest == "sha256:1"
    assert message.deadline == tracked.order.deadline


def test_a_command_without_a_cluster_or_a_manifest_cannot_be_made(sessions):
    with pytest.raises(ValueError, match="no cluster"):
        domain.command_message(sessions.new(cluster=None), sessions.manifest())
    with pytest.raises(ValueError, match="manifest"):
        domain.command_message(sessions.new(), None)


def test_homes_of_users_with_equal_looking_names_differ(sessions):
    names = ["Ada L.", "ada l ", "ada-l"]
    homes = {domain.home_name(Owner(user_id="usr-" + "0" * 32, username=name)) for name in names}
    assert len(homes) == len(names)


@pytest.mark.parametrize(
    ("connection", "runtime", "expected"),
    [
        (Connection(protocol=Protocol.HTTP, port=3000), RuntimeKind.DOCKER, ("http", 3000)),
        (Connection(protocol=Protocol.HTTP, port=3000), RuntimeKind.PROCESS, ("vnc", 5900)),
        (Connection(protocol=Protocol.VNC, port=5901), RuntimeKind.KUBERNETES, ("vnc", 5901)),
        (None, RuntimeKind.NULL, ("vnc", 5900)),
    ],
)
def test_how_a_session_is_reached_depends_on_what_runs_it(sessions, connection, runtime, expected):
    manifest = sessions.manifest(connection=connection, base_image="example/desktop:1")
    target = domain.reach(manifest, runtime)
    assert (target.protocol.value, target.port) == expected


def test_processes_that_serve_a_web_client_are_reached_by_it(sessions):
    web = Connection(protocol=Protocol.HTTP, port=8000, path="/lab")
    target = domain.reach(sessions.manifest(connection=web), RuntimeKind.PROCESS)
    assert (target.protocol, target.port, target.path) == (Protocol.HTTP, 8000, "/lab")


def test_an_unchanged_session_is_no_change(sessions):
    tracked = sessions.in_state(S.RUNNING)
    assert domain.extend(tracked, tracked.session.deadline, now=sessions.now).is_empty
    again = replace(tracked)
    assert again == tracked


def test_losing_sight_of_a_revoked_cluster_says_what_brings_it_back(sessions):
    tracked = sessions.in_state(S.RUNNING)
    change = domain.lose_sight(tracked, now=sessions.now, timing=sessions.timing, revoked=True)
    assert change.after.session.reason is Reason.CLUSTER_REVOKED
    assert "enrolled again" in change.after.session.message


@pytest.mark.parametrize("state", sorted(set(S) - {S.TERMINATED, S.FAILED, S.TERMINATING}))
def test_what_lived_on_a_removed_cluster_fails_with_it_and_nobody_is_told(sessions, state):
    change = domain.end_with_cluster(sessions.in_state(state), **arguments(sessions))
    assert change.after.state is S.FAILED
    assert change.after.session.reason is Reason.CLUSTER_REMOVED
    assert not change.after.order.is_open
    assert not change.sends_command
    assert given_up(change) is None  # Nobody could retry it.


def test_a_deletion_is_done_when_its_cluster_is_removed(sessions):
    change = domain.end_with_cluster(sessions.in_state(S.TERMINATING), **arguments(sessions))
    assert change.after.state is S.TERMINATED
    assert change.after.session.reason is Reason.CLUSTER_REMOVED


@pytest.mark.parametrize("state", [S.FAILED, S.TERMINATED])
def test_of_what_had_ended_only_the_open_command_ends(sessions, state):
    tracked = sessions.in_state(state, order=SessionCommandState.PENDING)
    change = domain.end_with_cluster(tracked, **arguments(sessions))
    assert change.after.state is state
    assert change.after.order.state is SessionCommandState.SUPERSEDED
    settled = sessions.in_state(state, order=SessionCommandState.COMPLETED)
    assert domain.end_with_cluster(settled, **arguments(sessions)).is_empty


def test_what_failed_with_its_cluster_is_deleted_without_asking_anybody(sessions):
    failed = sessions.in_state(S.FAILED)
    change = domain.delete(failed, **arguments(sessions), cluster_gone=True)
    assert change.after.state is S.TERMINATED
    assert not change.sends_command
