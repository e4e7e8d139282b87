"""What is true of a session, and what is to be done about it: pure decisions.

A record is settled when the work of its newest command is done. Until then whoever works
on it rules; from then on every agent of the cluster may put right what somebody else has
changed, and all of them decide alike.
"""

from dataclasses import dataclass

from streamspace_agent.domain import Death, Observed
from streamspace_agent.runtimes.kubernetes import diagnosis
from streamspace_agent.runtimes.kubernetes.options import OnDrift
from streamspace_agent.runtimes.kubernetes.views import PodView, Record, RecordPhase, Snapshot
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.sessions import DesiredState, Reason


@dataclass(frozen=True)
class Late:
    """A newer generation is written already."""

    newer: int


@dataclass(frozen=True)
class Written:
    """This very generation is written, and wants the same."""


@dataclass(frozen=True)
class Write:
    """The generation is to be written."""


@dataclass(frozen=True)
class Repair:
    """Make it again what the record says it is. `apply`: its resources were changed."""

    why: str
    apply: bool


@dataclass(frozen=True)
class Remove:
    """Resources are there that should not be."""


@dataclass(frozen=True)
class Died:
    """The desktop is gone and is not brought back."""

    reason: Reason
    message: str
    incarnation: str
    log_of: str | None = None
    """The pod whose last words tell more."""


Verdict = Repair | Remove | Died | None


def fence(record: Record | None, generation: int, wanted: DesiredState) -> Late | Written | Write:
    """What a command of `generation` may do, given what is written."""
    if record is None:
        return Write()
    if record.generation > generation:
        return Late(record.generation)
    if record.generation == generation and record.wanted is wanted:
        return Written()
    return Write()


def observed(snapshot: Snapshot) -> Observed | None:
    """The session as the rest of the agent sees it."""
    record = snapshot.record
    if record is None:
        return None
    return Observed(record.session, record.generation, _state(snapshot, record), dead(record))


def dead(record: Record) -> Death | None:
    """The death that is written on a record."""
    if not record.is_dead:
        return None
    status = record.status
    return Death(
        status.incarnation or str(status.generation),
        status.message or "The desktop ended.",
        status.reason or Reason.DESKTOP_DIED,
    )


def _state(snapshot: Snapshot, record: Record) -> ResourceState | None:
    match record.wanted:
        case DesiredState.TERMINATED:
            return None
        case DesiredState.HIBERNATED:
            # Not settled means that its processes are still ending.
            return ResourceState.HIBERNATED if record.settled else ResourceState.STARTING
        case DesiredState.RUNNING:
            if record.is_dead:
                return ResourceState.DEAD
            return ResourceState.RUNNING if is_up(snapshot) else ResourceState.STARTING


def is_up(snapshot: Snapshot) -> bool:
    """Whether the session runs, on the very pod that was found ready, and its node is heard."""
    return may_answer(snapshot) and snapshot.pod is not None and not snapshot.pod.ready_unknown


def may_answer(snapshot: Snapshot) -> bool:
    """Whether a stream to the session's pod is worth a try.

    A node that is silent is no reason against: it may be the API server that it cannot reach.
    """
    record, pod = snapshot.record, snapshot.pod
    return (
        record is not None
        and record.settled
        and record.wanted is DesiredState.RUNNING
        and record.status.phase is RecordPhase.RUNNING
        and pod is not None
        and pod.uid == record.status.pod_uid
        and pod.running
    )


def why_not_up(record: Record | None) -> str:
    """What somebody is told who wants to see a session that is not up."""
    if record is not None and record.status.phase is RecordPhase.RECOVERING:
        return f"The session is being brought back. {record.status.message or ''}".strip()
    return "The session is not running here."


def is_alive(snapshot: Snapshot) -> bool:
    """Whether what an earlier generation started runs on untouched."""
    record, pod = snapshot.record, snapshot.pod
    return (
        record is not None
        and record.status.phase is RecordPhase.RUNNING
        and pod is not None
        and pod.uid == record.status.pod_uid
        and _lives(pod)
        and _ended(pod, record.status.restarts) is None
        and _changed(snapshot, record) is None
    )


def judge(snapshot: Snapshot, policy: OnDrift) -> Verdict:
    """What is to be done about a session that nobody works on."""
    record = snapshot.record
    if record is None or not record.settled:
        return None
    if record.wanted is DesiredState.TERMINATED or record.is_dead:
        return Remove() if snapshot.deployment and not snapshot.deployment.deleting else None
    if record.wanted is DesiredState.HIBERNATED:
        return _judge_resting(snapshot, record)
    return _judge_running(snapshot, record, policy)


def _judge_resting(snapshot: Snapshot, record: Record) -> Verdict:
    deployment = snapshot.deployment
    if deployment is None or deployment.deleting:
        # Nothing runs, and the record knows all that a wake needs.
        return None
    if deployment.replicas > 0:
        return Repair("somebody scaled up a session that hibernates", apply=True)
    return None


def _judge_running(snapshot: Snapshot, record: Record, policy: OnDrift) -> Verdict:
    status, pod = record.status, snapshot.pod
    ours = pod is not None and pod.uid == status.pod_uid
    if ours and (ended := _ended(pod, status.restarts)) is not None:
        return ended
    changed = _changed(snapshot, record)
    if changed is not None:
        return _drift(record, policy, changed, apply=True)
    if ours and pod is not None and _lives(pod):
        if status.phase is RecordPhase.RUNNING:
            return None
        return Repair("its pod is back", apply=False)
    lost = next((p for p in snapshot.pods if p.uid == status.pod_uid), None)
    return _drift(record, policy, diagnosis.pod_loss(lost), apply=False)


def _lives(pod: PodView) -> bool:
    return pod.running and not pod.ready_unknown and pod.phase != "Failed"


def _ended(pod: PodView | None, restarts: int) -> Died | None:
    """Whether the container of the pod that was ready has ended since."""
    if pod is None or pod.ended is None or pod.phase == "Failed":
        return None
    if not pod.stopped and pod.restarts <= restarts:
        return None
    trouble = diagnosis.death(pod, pod.ended)
    run = pod.restarts if pod.stopped else pod.restarts - 1
    return Died(
        trouble.reason,
        trouble.message,
        f"{pod.uid[:13]}-{max(run, restarts)}",
        pod.name if trouble.wants_log else None,
    )


def _changed(snapshot: Snapshot, record: Record) -> str | None:
    """How the Deployment is not what our last apply made it."""
    deployment, status = snapshot.deployment, record.status
    if deployment is None or deployment.deleting:
        return "Its Deployment was deleted by somebody or something outside StreamSpace."
    if deployment.uid != status.deployment_uid:
        return "Its Deployment was replaced by somebody outside StreamSpace."
    if status.deployment_generation is not None and (
        deployment.generation > status.deployment_generation
    ):
        return "Its Deployment was changed by somebody or something outside StreamSpace."
    return None


def _drift(record: Record, policy: OnDrift, why: str, *, apply: bool) -> Verdict:
    if policy is OnDrift.REPAIR:
        return Repair(why, apply)
    status = record.status
    return Died(Reason.LOST, why, f"{(status.pod_uid or '')[:13]}-lost-{status.restarts}")
