"""Every command against everything that may be there."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamspace_agent.domain import Death, Observed
from streamspace_agent.reconcile import Action, Desired, reconcile
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState

S = SessionId("ada-terminal-00000001")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUNNING, HIBERNATED, TERMINATED = DesiredState
_ = Action


def desired(state: DesiredState, generation: int = 5, *, seconds: float = 60) -> Desired:
    return Desired(S, generation, state, NOW + timedelta(seconds=seconds))


def observed(state: ResourceState | None, generation: int = 5) -> Observed:
    death = Death("1", "gone") if state is ResourceState.DEAD else None
    return Observed(S, generation, state, death)


@pytest.mark.parametrize(
    ("wanted", "there", "actions"),
    [
        # Nothing is known of the session.
        (RUNNING, None, (_.TELL_RECEIVED, _.START, _.TELL_STARTED)),
        (HIBERNATED, None, (_.TELL_RECEIVED, _.HIBERNATE, _.TELL_HIBERNATED)),
        (TERMINATED, None, (_.TELL_RECEIVED, _.REMOVE, _.TELL_STOPPED)),
        # The same generation, and it is as it was wanted: tell again.
        (RUNNING, observed(ResourceState.RUNNING), (_.TELL_RECEIVED, _.TELL_STARTED)),
        (HIBERNATED, observed(ResourceState.HIBERNATED), (_.TELL_RECEIVED, _.TELL_HIBERNATED)),
        (TERMINATED, observed(None), (_.TELL_RECEIVED, _.REMOVE, _.TELL_STOPPED)),
        # The same generation, cut short.
        (RUNNING, observed(ResourceState.STARTING), (_.TELL_RECEIVED, _.START, _.TELL_STARTED)),
        (RUNNING, observed(None), (_.TELL_RECEIVED, _.START, _.TELL_STARTED)),
        (
            HIBERNATED,
            observed(ResourceState.RUNNING),
            (_.TELL_RECEIVED, _.HIBERNATE, _.TELL_HIBERNATED),
        ),
        (TERMINATED, observed(ResourceState.RUNNING), (_.TELL_RECEIVED, _.REMOVE, _.TELL_STOPPED)),
        # The desktop died since.
        (RUNNING, observed(ResourceState.DEAD), (_.TELL_RECEIVED, _.TELL_DEATH)),
        (
            HIBERNATED,
            observed(ResourceState.DEAD),
            (_.TELL_RECEIVED, _.HIBERNATE, _.TELL_HIBERNATED),
        ),
        (TERMINATED, observed(ResourceState.DEAD), (_.TELL_RECEIVED, _.REMOVE, _.TELL_STOPPED)),
        # An older generation is there.
        (RUNNING, observed(ResourceState.DEAD, 4), (_.TELL_RECEIVED, _.START, _.TELL_STARTED)),
        (RUNNING, observed(ResourceState.RUNNING, 4), (_.TELL_RECEIVED, _.START, _.TELL_STARTED)),
        (
            RUNNING,
            observed(ResourceState.HIBERNATED, 4),
            (_.TELL_RECEIVED, _.START, _.TELL_STARTED),
        ),
        # A newer one is.
        (RUNNING, observed(None, 6), (_.TELL_SUPERSEDED,)),
        (HIBERNATED, observed(ResourceState.RUNNING, 6), (_.TELL_SUPERSEDED,)),
        (TERMINATED, observed(ResourceState.RUNNING, 6), (_.TELL_SUPERSEDED,)),
    ],
)
def test_the_table(
    wanted: DesiredState, there: Observed | None, actions: tuple[Action, ...]
) -> None:
    assert reconcile(desired(wanted), there, NOW) == actions


@pytest.mark.parametrize("wanted", [RUNNING, HIBERNATED])
def test_what_is_late_expires_without_effect(wanted: DesiredState) -> None:
    assert reconcile(desired(wanted, seconds=-1), None, NOW) == (Action.TELL_EXPIRED,)


def test_a_stop_is_never_too_late() -> None:
    late = desired(TERMINATED, seconds=-86400)
    there = observed(ResourceState.RUNNING, 4)
    assert Action.REMOVE in reconcile(late, there, NOW)


def test_late_and_superseded_is_superseded() -> None:
    assert reconcile(desired(RUNNING, seconds=-1), observed(None, 6), NOW) == (
        Action.TELL_SUPERSEDED,
    )


@given(
    st.sampled_from(DesiredState),
    st.integers(1, 9),
    st.sampled_from([None, *ResourceState]),
    st.integers(1, 9),
    st.floats(-100, 100),
)
def test_every_answer_tells_one_result_and_an_older_command_never_acts(
    wanted: DesiredState, generation: int, state: ResourceState | None, seen: int, seconds: float
) -> None:
    actions = reconcile(desired(wanted, generation, seconds=seconds), observed(state, seen), NOW)

    results = [a for a in actions if a.startswith("tell_") and a is not Action.TELL_RECEIVED]
    effects = [a for a in actions if not a.startswith("tell_")]
    assert results == [actions[-1]]
    assert len(effects) <= 1
    if generation < seen:
        assert effects == []
