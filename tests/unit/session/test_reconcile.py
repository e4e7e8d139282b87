"""Inventories against the database: one table of what is shown and what is decided."""

from dataclasses import replace
from datetime import timedelta

import pytest

from streamspace_common.contracts.clusters import Inventory, ResourceReport, ResourceState
from streamspace_common.contracts.sessions import (
    DesiredState,
    SessionCommandState,
    SessionState,
)
from streamspace_session.domain import Action, Trigger
from streamspace_session.reconcile import (
    Died,
    Lost,
    Observe,
    Restart,
    SendAgain,
    StopLeftover,
    StopStranger,
    compare,
)

S, R = SessionState, ResourceState
GRACE = timedelta(seconds=10)


@pytest.fixture
def decide(sessions):
    """Compare one session (or none) with what an agent shows of it (or does not)."""

    def run(tracked, shown=None, *, generation=None, busy=False, age=60.0, name=None):
        session_id = name or tracked.session.id
        resources = ()
        if shown is not None:
            number = generation or (tracked.session.generation if tracked else 1)
            resources = (ResourceReport(session_id=session_id, generation=number, state=shown),)
        inventory = Inventory(
            cluster_id="lab",
            instance="agent-1",
            sent_at=sessions.now,
            resources=resources,
            busy=(session_id,) if busy else (),
        )
        known = {} if tracked is None else {tracked.session.id: tracked}
        return compare(
            "lab",
            inventory,
            known,
            sessions.later(seconds=age),
            grace=GRACE,
            timing=sessions.timing,
        )

    return run


def kinds(decisions):
    return [type(decision) for decision in decisions]


def test_a_stranger_is_stopped_above_its_generation(decide):
    (decision,) = decide(None, R.RUNNING, generation=4, name="a-stranger")
    assert decision == StopStranger("a-stranger", 4)


def test_a_session_of_another_cluster_is_a_stranger_here(sessions, decide):
    tracked = sessions.in_state(S.RUNNING, cluster="other")
    assert kinds(decide(tracked, R.RUNNING)) == [StopStranger]
    assert decide(tracked) == []


@pytest.mark.parametrize("state", [S.TERMINATED, S.FAILED])
@pytest.mark.parametrize("shown", list(R))
def test_what_is_left_of_an_ended_session_is_stopped(sessions, decide, state, shown):
    assert kinds(decide(sessions.in_state(state), shown)) == [StopLeftover]


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (S.RUNNING, R.RUNNING),
        (S.HIBERNATED, R.HIBERNATED),
        (S.HIBERNATED, None),
        (S.STARTING, R.STARTING),
        (S.TERMINATING, R.RUNNING),
        (S.TERMINATING, None),
        (S.PENDING, None),
        (S.HIBERNATING, R.RUNNING),
        (S.HIBERNATING, None),
        (S.WAKING, R.HIBERNATED),
        (S.TERMINATED, None),
        (S.FAILED, None),
    ],
)
def test_what_agrees_or_is_under_way_is_left_alone(sessions, decide, state, shown):
    assert decide(sessions.in_state(state), shown) == []


@pytest.mark.parametrize("state", [S.STARTING, S.WAKING, S.PENDING, S.UNKNOWN])
def test_what_runs_as_wanted_is_running(sessions, decide, state):
    tracked = sessions.in_state(state)
    assert decide(tracked, R.RUNNING) == [Observe(tracked.session.id, Trigger.STARTED)]


@pytest.mark.parametrize("shown", [R.HIBERNATED, R.DEAD, R.STARTING])
@pytest.mark.parametrize("state", [S.UNKNOWN, S.RUNNING])
def test_what_was_so_before_the_newest_command_was_carried_out_says_nothing(
    sessions, decide, state, shown
):
    tracked = sessions.in_state(state, action=Action.WAKE, generation=3)
    late = replace(tracked, order=replace(tracked.order, completed_at=sessions.later(seconds=20)))
    assert decide(late, shown, generation=2) == []
    assert decide(late, shown, generation=2, age=3600) != [] or (state, shown) in {
        (S.RUNNING, R.HIBERNATED),
        (S.RUNNING, R.STARTING),
    }


@pytest.mark.parametrize("state", [S.STARTING, S.RUNNING, S.WAKING, S.UNKNOWN])
def test_the_dead_are_failed(sessions, decide, state):
    assert kinds(decide(sessions.in_state(state), R.DEAD)) == [Died]


def test_a_missing_desktop_is_started_again_until_that_is_enough(sessions, decide):
    running = sessions.in_state(S.RUNNING)
    assert kinds(decide(running)) == [Restart]
    assert kinds(decide(replace(running, restarts=2))) == [Lost]


@pytest.mark.parametrize("state", [S.STARTING, S.WAKING])
def test_a_missing_start_is_sent_again_until_that_is_enough(sessions, decide, state):
    tracked = sessions.in_state(state)
    assert kinds(decide(tracked)) == [SendAgain]
    spent = replace(tracked, order=replace(tracked.order, attempt=3))
    assert kinds(decide(spent)) == [Lost]


@pytest.mark.parametrize(
    ("action", "desired", "order", "shown", "expected"),
    [
        (Action.START, DesiredState.RUNNING, "completed", None, Restart),
        (Action.START, DesiredState.RUNNING, "pending", None, Trigger.START_BEGUN),
        (Action.WAKE, DesiredState.RUNNING, "pending", R.HIBERNATED, Trigger.WAKE_BEGUN),
        (Action.START, DesiredState.RUNNING, "acknowledged", R.STARTING, Trigger.START_BEGUN),
        (Action.HIBERNATE, DesiredState.HIBERNATED, "pending", R.RUNNING, Trigger.HIBERNATE_BEGUN),
        (Action.HIBERNATE, DesiredState.HIBERNATED, "pending", R.HIBERNATED, Trigger.HIBERNATED),
        (Action.HIBERNATE, DesiredState.HIBERNATED, "pending", None, Trigger.HIBERNATED),
    ],
)
def test_out_of_sight_returns_to_the_truth(
    sessions, decide, action, desired, order, shown, expected
):
    unknown = sessions.in_state(
        S.UNKNOWN, action=action, desired=desired, order=SessionCommandState(order)
    )
    (decision,) = decide(unknown, shown)
    if isinstance(expected, Trigger):
        assert decision == Observe(unknown.session.id, expected)
    else:
        assert isinstance(decision, expected)


@pytest.mark.parametrize("shown", [None, R.DEAD])
def test_what_is_being_worked_on_is_left_alone(sessions, decide, shown):
    assert decide(sessions.in_state(S.RUNNING), shown, busy=True) == []
    assert decide(None, R.RUNNING, busy=True, name="a-stranger") == []


def test_what_has_just_changed_is_left_to_the_next_inventory(sessions, decide):
    running = sessions.in_state(S.RUNNING)
    assert decide(running, age=9.9) == []
    assert kinds(decide(running, age=10.0)) == [Restart]


def test_a_wake_asked_for_is_not_done_by_what_ran_before(sessions, decide):
    waking = sessions.in_state(S.WAKING, generation=3)
    assert decide(waking, R.RUNNING, generation=1) == []
