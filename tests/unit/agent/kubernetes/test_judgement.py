"""Who may act on a session, what is true of it, and what is to be done when it changed."""

from dataclasses import replace
from typing import Any

import pytest

from streamspace_agent.runtimes.kubernetes import judgement
from streamspace_agent.runtimes.kubernetes.judgement import (
    Died,
    Late,
    Remove,
    Repair,
    Write,
    Written,
)
from streamspace_agent.runtimes.kubernetes.options import OnDrift
from streamspace_agent.runtimes.kubernetes.views import (
    DeploymentView,
    Ended,
    PodView,
    Record,
    RecordPhase,
    Snapshot,
    Status,
)
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState, Reason

S = SessionId("ada-desktop-00000001")
RUNNING, HIBERNATED, TERMINATED = (
    DesiredState.RUNNING,
    DesiredState.HIBERNATED,
    DesiredState.TERMINATED,
)
REPAIR, REPORT = OnDrift.REPAIR, OnDrift.REPORT


def record(
    phase: RecordPhase = RecordPhase.RUNNING,
    *,
    wanted: DesiredState = RUNNING,
    generation: int = 3,
    told: int | None = None,
    **status: Any,
) -> Record:
    facts: dict[str, Any] = {
        "pod_uid": "p1",
        "deployment_uid": "d1",
        "deployment_generation": 4,
    } | status
    return Record(
        S,
        "u1",
        "100",
        generation,
        wanted,
        Status(phase, generation if told is None else told, **facts),
    )


DEPLOYMENT = DeploymentView(
    S,
    "d1",
    "101",
    fence=3,
    generation=4,
    replicas=1,
    deleting=False,
    rolled_out=True,
    existing=1,
    refusal=None,
    foreign=False,
)
POD = PodView(
    session=S,
    name="pod",
    uid="p1",
    version="102",
    created_at="2026-01-01T00:00:00Z",
    deleting=False,
    phase="Running",
    reason="",
    message="",
    node="node-1",
    ip="10.0.0.7",
    scheduled=True,
    scheduling_trouble="",
    sandbox_ready=True,
    ready=True,
    ready_unknown=False,
    running=True,
    waiting_reason="",
    waiting_message="",
    restarts=0,
    ended=None,
    stopped=False,
)
UP = Snapshot(S, record(), DEPLOYMENT, (POD,))
CRASH = Ended(1, 0, "Error", "", "containerd://a")


@pytest.mark.parametrize(
    ("there", "generation", "wanted", "decision"),
    [
        (None, 1, RUNNING, Write()),
        (record(), 4, RUNNING, Write()),
        (record(), 3, RUNNING, Written()),
        (record(), 2, RUNNING, Late(3)),
        (record(), 2, TERMINATED, Late(3)),
        # A start that was undone, and comes again.
        (record(RecordPhase.FAILED, wanted=TERMINATED), 3, RUNNING, Write()),
    ],
)
def test_a_lower_generation_never_has_an_effect(
    there: Record | None, generation: int, wanted: DesiredState, decision: object
) -> None:
    assert judgement.fence(there, generation, wanted) == decision


@pytest.mark.parametrize(
    ("snapshot", "state"),
    [
        (UP, ResourceState.RUNNING),
        (Snapshot(S, record(RecordPhase.STARTING)), ResourceState.STARTING),
        # A newer command that has not finished.
        (replace(UP, record=record(told=2)), ResourceState.STARTING),
        (replace(UP, pods=()), ResourceState.STARTING),
        (replace(UP, pods=(replace(POD, uid="p2"),)), ResourceState.STARTING),
        (replace(UP, pods=(replace(POD, ready_unknown=True),)), ResourceState.STARTING),
        (Snapshot(S, record(RecordPhase.FAILED)), ResourceState.DEAD),
        (
            Snapshot(S, record(RecordPhase.HIBERNATED, wanted=HIBERNATED)),
            ResourceState.HIBERNATED,
        ),
        (Snapshot(S, record(RecordPhase.TERMINATED, wanted=TERMINATED)), None),
        (Snapshot(S, record(RecordPhase.RUNNING, wanted=TERMINATED, told=2)), None),
    ],
)
def test_the_record_and_the_pod_tell_the_state(
    snapshot: Snapshot, state: ResourceState | None
) -> None:
    observed = judgement.observed(snapshot)
    assert observed is not None
    assert (observed.generation, observed.state) == (3, state)


@pytest.mark.parametrize(
    ("snapshot", "worth_a_try"),
    [
        (UP, True),
        # What is cut off may be the node's way to the API server, and nothing else.
        (replace(UP, pods=(replace(POD, ready_unknown=True),)), True),
        (replace(UP, pods=(replace(POD, running=False),)), False),
        (replace(UP, pods=(replace(POD, uid="p2"),)), False),
        (replace(UP, record=record(RecordPhase.RECOVERING)), False),
        (replace(UP, record=record(told=2)), False),
        (Snapshot(S, None), False),
    ],
)
def test_a_stream_is_tried_while_the_pod_may_answer(snapshot: Snapshot, worth_a_try: bool) -> None:
    assert judgement.may_answer(snapshot) is worth_a_try


def test_a_session_without_a_record_was_never_heard_of() -> None:
    assert judgement.observed(Snapshot(S, None, DEPLOYMENT, (POD,))) is None


def test_what_runs_as_it_should_is_left_alone() -> None:
    assert judgement.judge(UP, REPAIR) is None
    assert judgement.judge(UP, REPORT) is None


@pytest.mark.parametrize(
    "unsettled",
    [
        record(RecordPhase.STARTING),
        record(told=2),
        record(RecordPhase.TERMINATING, wanted=TERMINATED),
        record(RecordPhase.SUSPENDED),
    ],
)
def test_whoever_works_on_a_session_is_not_disturbed(unsettled: Record) -> None:
    assert judgement.judge(Snapshot(S, unsettled), REPAIR) is None


@pytest.mark.parametrize(
    ("snapshot", "apply", "words"),
    [
        (replace(UP, deployment=None), True, "Deployment was deleted"),
        (replace(UP, deployment=replace(DEPLOYMENT, deleting=True)), True, "was deleted"),
        (replace(UP, deployment=replace(DEPLOYMENT, generation=5)), True, "was changed"),
        (replace(UP, deployment=replace(DEPLOYMENT, uid="d2")), True, "was replaced"),
        (replace(UP, pods=()), False, "pod was deleted"),
        (replace(UP, pods=(replace(POD, deleting=True),)), False, "being removed"),
        (
            replace(UP, pods=(replace(POD, ready_unknown=True),)),
            False,
            "node node-1 does not answer",
        ),
        (
            replace(
                UP,
                pods=(
                    replace(POD, running=False, phase="Failed", reason="Evicted", message="Low"),
                ),
            ),
            False,
            "evict it: Low.",
        ),
    ],
)
def test_drift_is_repaired_or_reported_as_the_policy_says(
    snapshot: Snapshot, apply: bool, words: str
) -> None:
    repaired = judgement.judge(snapshot, REPAIR)
    assert isinstance(repaired, Repair)
    assert repaired.apply is apply
    assert words in repaired.why
    reported = judgement.judge(snapshot, REPORT)
    assert isinstance(reported, Died)
    assert (reported.reason, reported.message) == (Reason.LOST, repaired.why)


@pytest.mark.parametrize("policy", list(OnDrift))
def test_a_desktop_that_ended_is_dead_whatever_the_policy(policy: OnDrift) -> None:
    stopped = replace(POD, running=False, ended=CRASH, stopped=True)
    restarted = replace(POD, ended=CRASH, restarts=1)
    deaths = [judgement.judge(replace(UP, pods=(pod,)), policy) for pod in (stopped, restarted)]
    assert deaths[0] == deaths[1]
    assert isinstance(deaths[0], Died)
    assert (deaths[0].reason, deaths[0].log_of) == (Reason.DESKTOP_DIED, "pod")


def test_a_crash_before_the_session_was_ready_is_history() -> None:
    restarted_once = replace(POD, ended=CRASH, restarts=1)
    snapshot = Snapshot(S, record(restarts=1), DEPLOYMENT, (restarted_once,))
    assert judgement.judge(snapshot, REPAIR) is None


def test_a_second_crash_has_a_name_of_its_own() -> None:
    first = Snapshot(S, record(), DEPLOYMENT, (replace(POD, ended=CRASH, restarts=1),))
    second = Snapshot(S, record(restarts=1), DEPLOYMENT, (replace(POD, ended=CRASH, restarts=2),))
    names = {judgement.judge(each, REPAIR).incarnation for each in (first, second)}  # type: ignore[union-attr]
    assert len(names) == 2


def test_running_out_of_memory_is_the_reason() -> None:
    killed = replace(POD, running=False, stopped=True, ended=Ended(137, 0, "OOMKilled", "", ""))
    verdict = judgement.judge(replace(UP, pods=(killed,)), REPAIR)
    assert isinstance(verdict, Died)
    assert verdict.reason is Reason.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "ended",
    [
        record(RecordPhase.TERMINATED, wanted=TERMINATED),
        record(RecordPhase.FAILED, wanted=TERMINATED),
        record(RecordPhase.FAILED),
    ],
)
def test_what_is_left_of_an_ended_session_is_removed(ended: Record) -> None:
    assert judgement.judge(Snapshot(S, ended, DEPLOYMENT), REPAIR) == Remove()
    going = replace(DEPLOYMENT, deleting=True)
    assert judgement.judge(Snapshot(S, ended, going), REPAIR) is None
    assert judgement.judge(Snapshot(S, ended), REPAIR) is None


def test_a_session_that_rests_is_put_to_rest_again() -> None:
    resting = record(RecordPhase.HIBERNATED, wanted=HIBERNATED)
    assert judgement.judge(Snapshot(S, resting, replace(DEPLOYMENT, replicas=0)), REPAIR) is None
    assert judgement.judge(Snapshot(S, resting), REPAIR) is None
    woken = judgement.judge(Snapshot(S, resting, DEPLOYMENT), REPAIR)
    assert isinstance(woken, Repair)


def test_a_start_leaves_alone_what_an_earlier_generation_started() -> None:
    assert judgement.is_alive(replace(UP, record=record(told=2)))
    assert not judgement.is_alive(replace(UP, record=record(RecordPhase.FAILED, told=2)))
    assert not judgement.is_alive(replace(UP, pods=(replace(POD, ended=CRASH, stopped=True),)))
    assert not judgement.is_alive(replace(UP, deployment=None))


def test_the_newest_pod_that_stays_is_the_sessions() -> None:
    going = replace(POD, name="a", uid="p0", deleting=True, created_at="2026-01-02T00:00:00Z")
    newer = replace(POD, name="b", uid="p2", created_at="2026-01-01T00:00:09Z")
    assert Snapshot(S, pods=(POD, newer, going)).pod == newer
