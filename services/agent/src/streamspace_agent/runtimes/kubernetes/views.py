"""What the cluster says, read: the few facts of each resource that the agent acts on.

Hundreds of sessions are held in memory this way, so a view keeps no more than is used,
and the longest part, a session's whole spec, as JSON until somebody needs it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState, Reason, SessionSpec


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
