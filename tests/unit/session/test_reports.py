"""What agents' reports make of a session."""

import pytest

from streamspace_common.contracts.events import (
    CommandExpired,
    CommandReceived,
    CommandSuperseded,
    PhaseReached,
    SessionCommandChanged,
    SessionFailed,
    SessionHibernated,
    SessionStarted,
    SessionStopped,
)
from streamspace_common.contracts.sessions import (
    DesiredState,
    Phase,
    PhaseTiming,
    Reason,
    SessionCommandState,
    SessionState,
)
from streamspace_session.domain import Action, IllegalTransitionError, report

S, C = SessionState, SessionCommandState


@pytest.fixture
def hear(sessions):
    """Apply a report to a session, at the session's own generation unless told otherwise."""

    def apply(tracked, model, **fields):
        about = {
            "id": "r-1",
            "at": sessions.now,
            "cluster_id": "lab",
            "instance": "agent-1",
            "session_id": tracked.session.id,
            "generation": tracked.session.generation,
        }
        event = model(**{**about, **fields})
        return report(tracked, event, now=sessions.later(seconds=1), timing=sessions.timing)

    return apply


def phase(name, elapsed=1.0):
    return PhaseTiming(phase=name, elapsed_ms=elapsed)


def test_taking_the_command_begins_the_start(sessions, hear):
    change = hear(sessions.new(), CommandReceived)
    assert change.after.state is S.STARTING
    assert change.after.order.state is C.ACKNOWLEDGED
    assert change.after.order.acknowledged_at == sessions.later(seconds=1)
    assert change.after.session.deadline == sessions.later(seconds=1) + sessions.timing.starting


def test_the_first_phase_begins_the_start_as_well(sessions, hear):
    change = hear(sessions.new(), PhaseReached, timing=phase(Phase.SCHEDULED))
    assert change.after.state is S.STARTING
    assert change.events[0].session.phases == (phase(Phase.SCHEDULED),)


def test_later_phases_are_kept_and_give_more_time_and_tell_nothing(sessions, hear):
    starting = sessions.in_state(S.STARTING, phases=(phase(Phase.SCHEDULED),))
    change = hear(starting, PhaseReached, timing=phase(Phase.PULLING))
    assert [t.phase for t in change.after.session.phases] == ["scheduled", "pulling"]
    assert change.after.session.deadline == sessions.later(seconds=1) + sessions.timing.starting
    assert change.events == ()


def test_a_phase_told_twice_is_kept_once(sessions, hear):
    starting = sessions.in_state(S.STARTING, phases=(phase(Phase.CREATED, 1),))
    change = hear(starting, PhaseReached, timing=phase(Phase.CREATED, 9))
    assert change.after.session.phases == (phase(Phase.CREATED, 9),)


def test_started_completes_the_command(sessions, hear):
    change = hear(sessions.in_state(S.STARTING), SessionStarted, phases=(phase(Phase.READY),))
    assert change.after.state is S.RUNNING
    assert change.after.order.state is C.COMPLETED
    assert change.after.session.started_at == sessions.later(seconds=1)
    assert change.after.session.deadline is None


def test_a_late_phase_changes_nothing_of_a_running_session(sessions, hear):
    change = hear(sessions.in_state(S.RUNNING), PhaseReached, timing=phase(Phase.CREATED))
    assert change.is_empty


@pytest.mark.parametrize("generation", [1, 3])
def test_reports_of_other_generations_are_history(sessions, hear, generation):
    tracked = sessions.in_state(S.HIBERNATING, generation=2)
    assert hear(tracked, SessionStopped, generation=generation).is_empty


def test_reports_of_another_cluster_are_nobodys(sessions, hear):
    assert hear(sessions.in_state(S.RUNNING), SessionStopped, cluster_id="other").is_empty


def test_stopped_ends_a_deletion(sessions, hear):
    change = hear(sessions.in_state(S.TERMINATING, reason=Reason.USER), SessionStopped)
    assert change.after.state is S.TERMINATED
    assert change.after.session.terminated_at == sessions.later(seconds=1)
    assert change.after.session.reason is Reason.USER


def test_stopped_though_nobody_asked_is_a_loss(sessions, hear):
    change = hear(sessions.in_state(S.RUNNING), SessionStopped)
    assert change.after.state is S.FAILED
    assert change.after.session.reason is Reason.LOST
    assert not change.sends_command


def test_cleaning_up_after_a_failure_does_not_undo_it(sessions, hear):
    change = hear(sessions.in_state(S.FAILED, reason=Reason.START_FAILED), SessionStopped)
    assert change.after.state is S.FAILED
    assert change.after.order.state is C.COMPLETED
    assert change.after.session.reason is Reason.START_FAILED
    [told] = change.events
    assert isinstance(told, SessionCommandChanged)
    assert told.command.state is C.COMPLETED


def test_a_deletion_that_failed_and_then_works_ends_as_deleted(sessions, hear):
    failed = sessions.in_state(S.FAILED, desired=DesiredState.TERMINATED, order=C.FAILED)
    assert hear(failed, SessionStopped).after.state is S.TERMINATED


@pytest.mark.parametrize("state", [S.STARTING, S.RUNNING, S.HIBERNATING, S.WAKING, S.UNKNOWN])
def test_a_failure_has_the_agents_reason(sessions, hear, state):
    change = hear(
        sessions.in_state(state), SessionFailed, reason=Reason.NO_SPACE, message="disk full"
    )
    assert change.after.state is S.FAILED
    assert change.after.session.reason is Reason.NO_SPACE
    assert change.after.session.message == "disk full"
    assert change.after.order.action is Action.STOP


def test_a_failed_stop_is_tried_again_soon_and_fails_in_the_end(sessions, hear):
    first = sessions.in_state(S.TERMINATING)
    again = hear(first, SessionFailed, reason=Reason.STOP_FAILED, message="busy")
    assert again.after.state is S.TERMINATING
    assert again.after.order.error == "busy"
    assert again.after.session.deadline < sessions.later(minutes=1)
    from dataclasses import replace

    last = replace(first, order=replace(first.order, attempt=sessions.timing.max_attempts))
    ended = hear(last, SessionFailed, reason=Reason.STOP_FAILED, message="busy")
    assert ended.after.state is S.FAILED
    assert ended.after.session.reason is Reason.STOP_FAILED
    assert not ended.sends_command


def test_an_expired_start_fails_with_a_hint(sessions, hear):
    change = hear(sessions.in_state(S.PENDING), CommandExpired)
    assert change.after.state is S.FAILED
    assert change.after.session.reason is Reason.DEADLINE_EXCEEDED
    assert "clock" in change.after.session.message
    assert change.replaced.state is C.EXPIRED


def test_an_expired_stop_is_sent_again_at_once(sessions, hear):
    change = hear(sessions.in_state(S.TERMINATING), CommandExpired)
    assert change.after.state is S.TERMINATING
    assert change.after.session.deadline == sessions.later(seconds=1)


def test_an_agent_that_knows_a_newer_generation_is_overtaken(sessions, hear):
    change = hear(sessions.in_state(S.TERMINATING), CommandSuperseded, newer_generation=7)
    assert change.after.session.generation == 8
    assert change.after.order.action is Action.STOP
    assert change.sends_command


def test_superseded_by_what_we_know_ourselves_is_no_news(sessions, hear):
    tracked = sessions.in_state(S.TERMINATING, generation=3)
    assert hear(tracked, CommandSuperseded, newer_generation=3).is_empty


def test_back_from_unknown_nothing_was_started(sessions, hear):
    unknown = sessions.in_state(S.UNKNOWN, started_at=sessions.now, last_activity_at=sessions.now)
    change = hear(unknown, SessionStarted)
    assert change.after.state is S.RUNNING
    assert change.after.session.started_at == sessions.now
    assert change.after.session.last_activity_at == sessions.now


def test_a_report_that_makes_no_sense_raises(sessions, hear):
    with pytest.raises(IllegalTransitionError):
        hear(sessions.in_state(S.RUNNING), SessionHibernated)
