"""The table itself: every pair of state and trigger, legal or not."""

import itertools

import pytest

from streamspace_common.contracts.sessions import SessionState
from streamspace_session.domain import (
    TRANSITIONS,
    IllegalTransitionError,
    Trigger,
    allows,
    next_state,
)

# One line per state: what each trigger makes of it; a trigger not named is illegal.
EXPECTED = {
    "pending": {
        "start-begun": "starting", "started": "running", "vanished": "failed",
        "failed": "failed", "delete": "terminating", "delete-unplaced": "terminated",
    },
    "starting": {
        "start-begun": "starting", "started": "running", "vanished": "failed",
        "failed": "failed", "delete": "terminating", "lost-sight": "unknown",
    },
    "running": {
        "start-begun": "running", "wake-begun": "running", "started": "running",
        "vanished": "failed", "failed": "failed", "hibernate": "hibernating",
        "delete": "terminating", "restart": "starting", "lost-sight": "unknown",
    },
    "hibernating": {
        "hibernate-begun": "hibernating", "hibernated": "hibernated", "vanished": "failed",
        "failed": "failed", "delete": "terminating", "lost-sight": "unknown",
    },
    "hibernated": {
        "hibernate-begun": "hibernated", "hibernated": "hibernated", "vanished": "failed",
        "failed": "failed", "wake": "waking", "delete": "terminating",
    },
    "waking": {
        "wake-begun": "waking", "started": "running", "vanished": "failed",
        "failed": "failed", "delete": "terminating", "lost-sight": "unknown",
    },
    "terminating": {
        "stop-begun": "terminating", "stopped": "terminated", "failed": "failed",
        "given-up": "terminated", "delete": "terminating",
    },
    "terminated": {
        "stop-begun": "terminated", "stopped": "terminated", "failed": "terminated",
        "delete": "terminated",
    },
    "failed": {
        "stop-begun": "failed", "vanished": "failed", "failed": "failed",
        "stopped": "terminated", "delete": "terminating", "delete-unplaced": "terminated",
        "retry": "pending",
    },
    "unknown": {
        "start-begun": "starting", "wake-begun": "waking", "hibernate-begun": "hibernating",
        "started": "running", "hibernated": "hibernated", "vanished": "failed",
        "failed": "failed", "delete": "terminating", "restart": "starting",
        "lost-sight": "unknown",
    },
}  # fmt: skip

PAIRS = list(itertools.product(SessionState, Trigger))


@pytest.mark.parametrize(("state", "trigger"), PAIRS, ids=str)
def test_every_pair_is_as_the_table_says(state, trigger):
    expected = EXPECTED[state.value].get(trigger.value)
    if expected is None:
        assert not allows(state, trigger)
        with pytest.raises(IllegalTransitionError, match=str(state)):
            next_state(state, trigger)
    else:
        assert next_state(state, trigger).value == expected


def test_every_state_but_history_can_be_left_by_deletion():
    for state in set(SessionState) - {SessionState.TERMINATED}:
        assert reachable(state) & {SessionState.TERMINATED}, state


def test_nothing_leads_out_of_terminated():
    assert {TRANSITIONS[pair] for pair in TRANSITIONS if pair[0] is SessionState.TERMINATED} == {
        SessionState.TERMINATED
    }


def test_every_state_can_be_reached_from_pending():
    assert reachable(SessionState.PENDING) | {SessionState.PENDING} == set(SessionState)


def reachable(state):
    found, frontier = set(), {state}
    while frontier:
        frontier = {
            after for (before, _), after in TRANSITIONS.items() if before in frontier
        } - found
        found |= frontier
    return found
