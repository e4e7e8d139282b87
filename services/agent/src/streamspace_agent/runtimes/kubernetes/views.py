"""What the cluster says, read: the few facts of each resource that the agent acts on.

Hundreds of sessions are held in memory this way, so a view keeps no more than is used,
and the longest part, a session's whole spec, as JSON until somebody needs it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from streamspace_agent.runtimes.kubernetes import kinds
from streamspace_agent.runtimes.kubernetes.kinds import Manifest
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState, Reason, SessionSpec

Choice = TypeVar("Choice", bound=StrEnum)


class RecordPhase(StrEnum):
    """What a `Session` resource says of itself in `status.phase`."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    RECOVERING = "Recovering"
    SUSPENDED = "Suspended"
    HIBERNATING = "Hibernating"
    HIBERNATED = "Hibernated"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a `Session`; `generation` is the one whose work it tells of."""

    phase: RecordPhase = RecordPhase.PENDING
    generation: int = 0
    reason: Reason | None = None
    message: str | None = None
    incarnation: str | None = None
    """Names the run that a death ended."""
    pod: str | None = None
    pod_uid: str | None = None
    restarts: int = 0
    node: str | None = None
    deployment_uid: str | None = None
    deployment_generation: int | None = None
    """What our own last change made of the Deployment; a higher one is somebody else's."""
    started_at: str | None = None
    hibernated_at: str | None = None
    terminated_at: str | None = None

    def body(self) -> dict[str, Any]:
        """As it is written; empty fields are told as such, so that none stays behind."""
        return {
            "phase": self.phase.value,
            "generation": self.generation,
            "reason": self.reason.value if self.reason else None,
            "message": self.message,
            "incarnation": self.incarnation,
            "podName": self.pod,
            "podUid": self.pod_uid,
            "podRestarts": self.restarts,
            "nodeName": self.node,
            "deploymentUid": self.deployment_uid,
            "deploymentGeneration": self.deployment_generation,
            "startedAt": self.started_at,
            "hibernatedAt": self.hibernated_at,
            "terminatedAt": self.terminated_at,
        }


@dataclass(frozen=True, slots=True)
class Record:
    """A `Session` resource."""

    session: SessionId
    uid: str
    version: str
    generation: int
    wanted: DesiredState
    status: Status
    spec_json: bytes | None = None
    home: str | None = None
    delete_home: bool = False
    created_at: str = ""

    @property
    def settled(self) -> bool:
        """Whether the newest command's work is done; until then its worker rules."""
        return self.status.generation == self.generation and self.status.phase in _SETTLED

    @property
    def is_dead(self) -> bool:
        return (
            self.wanted is DesiredState.RUNNING
            and self.status.generation == self.generation
            and self.status.phase is RecordPhase.FAILED
        )

    def spec(self) -> SessionSpec | None:
        if self.spec_json is None:
            return None
        return SessionSpec.model_validate_json(self.spec_json)


_SETTLED = frozenset(
    {
        RecordPhase.RUNNING,
        RecordPhase.RECOVERING,
        RecordPhase.HIBERNATED,
        RecordPhase.TERMINATED,
        RecordPhase.FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class DeploymentView:
    session: SessionId
    uid: str
    version: str
    fence: int
    """The session's generation that was written with the last apply."""
    generation: int
    replicas: int
    deleting: bool
    rolled_out: bool
    """Its controller has seen the last change, and no pod of an older template is left."""
    existing: int
    refusal: str | None
    """Why no pod could be made, as the controller tells it."""
    foreign: bool
    """Somebody else has written to its spec."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended."""

    exit_code: int
    signal: int
    reason: str
    message: str
    container_id: str


@dataclass(frozen=True, slots=True)
class PodView:
    session: SessionId
    name: str
    uid: str
    version: str
    created_at: str
    deleting: bool
    phase: str
    reason: str
    message: str
    node: str | None
    ip: str | None
    scheduled: bool
    scheduling_trouble: str
    sandbox_ready: bool
    ready: bool
    ready_unknown: bool
    """The node has not been heard of for a while."""
    running: bool
    waiting_reason: str
    waiting_message: str
    restarts: int
    ended: Ended | None
    """How the container ended last, also when it runs again."""
    stopped: bool
    """It has ended and does not run again yet."""


@dataclass(frozen=True, slots=True)
class EventView:
    key: str
    version: str
    about_kind: str
    about: str
    reason: str
    message: str
    warning: bool
    at: str


@dataclass(frozen=True)
class Snapshot:
    """All that is known of one session at a moment."""

    session: SessionId
    record: Record | None = None
    deployment: DeploymentView | None = None
    pods: tuple[PodView, ...] = ()
    events: tuple[EventView, ...] = field(default=())

    @property
    def pod(self) -> PodView | None:
        """The newest pod that is to stay."""
        staying = [pod for pod in self.pods if not pod.deleting]
        return max(staying, key=lambda pod: (pod.created_at, pod.name), default=None)


def read_record(manifest: Manifest) -> Record | None:
    """A `Session`; None where it cannot be one of ours."""
    metadata, spec = manifest["metadata"], manifest.get("spec") or {}
    try:
        wanted = DesiredState(spec["state"])
        generation = int(spec["generation"])
    except (KeyError, ValueError, TypeError):
        return None
    body = spec.get("session")
    return Record(
        session=SessionId(metadata["name"]),
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        generation=generation,
        wanted=wanted,
        status=_read_status(manifest.get("status") or {}),
        spec_json=json.dumps(body, separators=(",", ":")).encode() if body else None,
        home=spec.get("home") if spec.get("persistentHome") else None,
        delete_home=bool(spec.get("deleteHome")),
        created_at=metadata.get("creationTimestamp") or "",
    )


def _read_status(status: Manifest) -> Status:
    return Status(
        phase=_one_of(RecordPhase, status.get("phase")) or RecordPhase.PENDING,
        generation=int(status.get("generation") or 0),
        reason=_one_of(Reason, status.get("reason")),
        message=status.get("message"),
        incarnation=status.get("incarnation"),
        pod=status.get("podName"),
        pod_uid=status.get("podUid"),
        restarts=int(status.get("podRestarts") or 0),
        node=status.get("nodeName"),
        deployment_uid=status.get("deploymentUid"),
        deployment_generation=status.get("deploymentGeneration"),
        started_at=status.get("startedAt"),
        hibernated_at=status.get("hibernatedAt"),
        terminated_at=status.get("terminatedAt"),
    )


def read_deployment(manifest: Manifest) -> DeploymentView | None:
    session = _session_of(manifest)
    if session is None or manifest["metadata"]["name"] != session:
        return None
    metadata, spec = manifest["metadata"], manifest["spec"]
    status = manifest.get("status") or {}
    replicas, existing = int(spec.get("replicas", 1)), int(status.get("replicas", 0))
    seen = int(status.get("observedGeneration", 0)) >= int(metadata.get("generation", 0))
    return DeploymentView(
        session=session,
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        fence=_number((metadata.get("annotations") or {}).get(kinds.GENERATION)),
        generation=int(metadata.get("generation", 0)),
        replicas=replicas,
        deleting="deletionTimestamp" in metadata,
        rolled_out=seen
        and existing == replicas
        and int(status.get("updatedReplicas", 0)) == replicas,
        existing=existing,
        refusal=next(
            (
                condition.get("message", "")
                for condition in status.get("conditions") or ()
                if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"
            ),
            None,
        ),
        foreign=any(map(_writes_spec, metadata.get("managedFields") or ())),
    )


def _writes_spec(entry: Manifest) -> bool:
    """Whether an entry of `managedFields` is of somebody else who owns a part of the spec."""
    if entry.get("manager") == kinds.FIELD_MANAGER or entry.get("subresource") == "status":
        return False
    return "f:spec" in (entry.get("fieldsV1") or {})


def read_pod(manifest: Manifest) -> PodView | None:
    session = _session_of(manifest)
    if session is None:
        return None
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    container: Manifest = next(iter(status.get("containerStatuses") or ()), {})
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    stopped = _read_ended(state.get("terminated"))
    return PodView(
        session=session,
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        created_at=metadata.get("creationTimestamp") or "",
        deleting="deletionTimestamp" in metadata,
        phase=status.get("phase", ""),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        node=(manifest.get("spec") or {}).get("nodeName"),
        ip=status.get("podIP"),
        scheduled=_is_true(conditions.get("PodScheduled")),
        scheduling_trouble=_scheduling_trouble(conditions.get("PodScheduled") or {}),
        sandbox_ready=_is_true(conditions.get("PodReadyToStartContainers")),
        ready=_is_true(conditions.get("Ready")),
        ready_unknown=_node_silent(conditions),
        running="running" in state,
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        restarts=int(container.get("restartCount", 0)),
        ended=stopped or _read_ended((container.get("lastState") or {}).get("terminated")),
        stopped=stopped is not None,
    )


def read_event(manifest: Manifest) -> EventView | None:
    about = manifest.get("involvedObject") or {}
    metadata = manifest["metadata"]
    return EventView(
        key=metadata["name"],
        version=metadata["resourceVersion"],
        about_kind=about.get("kind", ""),
        about=about.get("name", ""),
        reason=manifest.get("reason") or "",
        message=manifest.get("message") or "",
        warning=manifest.get("type") == "Warning",
        at=_moment_of(manifest),
    )


def _moment_of(manifest: Manifest) -> str:
    series = manifest.get("series") or {}
    return (
        series.get("lastObservedTime")
        or manifest.get("lastTimestamp")
        or manifest.get("eventTime")
        or manifest["metadata"].get("creationTimestamp")
        or ""
    )


def _read_ended(terminated: Manifest | None) -> Ended | None:
    if terminated is None:
        return None
    return Ended(
        exit_code=int(terminated.get("exitCode", 0)),
        signal=int(terminated.get("signal") or 0),
        reason=terminated.get("reason", ""),
        message=terminated.get("message", ""),
        container_id=terminated.get("containerID", ""),
    )


def _scheduling_trouble(condition: Manifest) -> str:
    if condition.get("status") == "False" and condition.get("reason") == "Unschedulable":
        return str(condition.get("message") or "Unschedulable")
    return ""


def _node_silent(conditions: dict[str, Manifest]) -> bool:
    """Whether the cluster has taken back what the node said of the pod.

    A kubelet calls a pod ready as soon as its containers are. Where they are and it is not,
    it was the node controller (`MarkPodsNotReady`) that changed the one and left the other.
    """
    ready = conditions.get("Ready") or {}
    return ready.get("status") == "Unknown" or (
        ready.get("status") == "False" and _is_true(conditions.get("ContainersReady"))
    )


def _is_true(condition: Manifest | None) -> bool:
    return condition is not None and condition.get("status") == "True"


def _session_of(manifest: Manifest) -> SessionId | None:
    name = (manifest["metadata"].get("labels") or {}).get(kinds.SESSION_LABEL)
    return SessionId(name) if name else None


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _one_of(choices: Callable[[str], Choice], text: str | None) -> Choice | None:
    try:
        return choices(text) if text else None
    except ValueError:
        return None
