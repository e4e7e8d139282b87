"""What the cluster says, read into views: each takes a resource as it came."""

import json
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from streamspace_agent.runtimes.kubernetes import kinds
from streamspace_agent.runtimes.kubernetes.kinds import Manifest
from streamspace_agent.runtimes.kubernetes.views import (
    DeploymentView,
    Ended,
    EventView,
    PodView,
    Record,
    RecordPhase,
    Status,
)
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState, Reason

Choice = TypeVar("Choice", bound=StrEnum)


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
