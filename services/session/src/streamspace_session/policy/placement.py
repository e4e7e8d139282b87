"""Where a session goes.

Able clusters can run the template at all: their runtime kind, architecture and labels
fit. Of those, live ones with room take it, the one whose fullest resource would stay
emptiest first, so a burst spreads evenly. A cluster is never chosen by chance: equal
ones go by their id.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamspace_common.contracts.catalog import RuntimeKind, TemplateManifest
from streamspace_common.contracts.clusters import Capacity, Presence
from streamspace_common.contracts.ids import ClusterId
from streamspace_session.policy.quantities import Demand

LIVE = frozenset({Presence.ONLINE, Presence.DEGRADED})
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A cluster as placement sees it; `reserved` counts every session that has not ended."""

    id: ClusterId
    presence: Presence
    runtime: RuntimeKind | None
    capacity: Capacity | None
    labels: Mapping[str, str]
    architecture: str | None = None
    drained: bool = False
    """An operator wants no new sessions there; unlike an agent's own restart, this may last."""
    revoked: bool = False
    """Its agents are not let in, and perhaps never again."""
    reserved_sessions: int = 0
    reserved_cpu_milli: int = 0
    reserved_memory: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a session asks of a cluster."""

    runtimes: frozenset[RuntimeKind]
    demand: Demand
    labels: Mapping[str, str]
    architectures: frozenset[str] = frozenset()
    wanted: ClusterId | None = None


@dataclass(frozen=True, slots=True)
class Overcommit:
    """How many times a cluster's CPU and memory may be promised: desktops mostly idle."""

    cpu: float = 4.0
    memory: float = 2.0


class NoClusterError(Exception):
    """No cluster can take the session, now or later; the message is for the user."""


def requirement(
    manifest: TemplateManifest, demand: Demand, wanted: ClusterId | None
) -> Requirement:
    """Read from a manifest what a cluster must have.

    `spec.clusterSelector` (labels) and `spec.architectures` are optional.
    """
    extra: dict[str, Any] = manifest.spec.model_extra or {}
    selector, architectures = extra.get("clusterSelector"), extra.get("architectures")
    return Requirement(
        runtimes=manifest.runtimes,
        demand=demand,
        labels={str(k): str(v) for k, v in selector.items()} if isinstance(selector, dict) else {},
        architectures=frozenset(_architecture(str(name)) for name in architectures)
        if isinstance(architectures, list)
        else frozenset(),
        wanted=wanted,
    )


def choose(
    candidates: Sequence[Candidate], need: Requirement, overcommit: Overcommit
) -> ClusterId | None:
    """The cluster to reserve on, or None when every able one is away for the moment.

    Raises:
        NoClusterError: none is able, the access of every able one is revoked, all others
            are drained, or every live one that is able is full.
    """
    let_in = [cluster for cluster in _able(candidates, need) if not cluster.revoked]
    if not let_in:
        raise NoClusterError(
            f"The access of cluster {need.wanted} has been revoked, so nothing is started there. "
            "Choose another one, or ask an administrator to enrol it again."
            if need.wanted
            else "The access of every cluster that could run this has been revoked. "
            "Ask an administrator to enrol one again."
        )
    able = [cluster for cluster in let_in if not cluster.drained]
    if not able:
        raise NoClusterError(
            f"Cluster {need.wanted} is being drained and takes no new sessions. "
            "Choose another one, or try again later."
            if need.wanted
            else "Every cluster that could run this is being drained and takes no new sessions. "
            "Try again later, or ask an operator."
        )
    live = [cluster for cluster in able if cluster.presence in LIVE]
    if not live:
        return None
    loads = [
        (load, cluster.id)
        for cluster in live
        if (load := _load(cluster, need.demand, overcommit)) <= 1.0
    ]
    if not loads:
        raise NoClusterError(
            f"Every cluster that could run this is full ({_names(live)}). "
            "Delete or wait for other sessions, or ask for less CPU and memory."
        )
    return min(loads)[1]


def _able(candidates: Sequence[Candidate], need: Requirement) -> list[Candidate]:
    known = [c for c in candidates if need.wanted is None or c.id == need.wanted]
    if not known:
        raise NoClusterError(
            f"There is no cluster {need.wanted}."
            if need.wanted
            else "No cluster is connected yet. An administrator adds one with POST /clusters."
        )
    refusals = {cluster.id: _why_not(cluster, need) for cluster in known}
    able = [cluster for cluster in known if refusals[cluster.id] is None]
    if not able:
        reasons = "; ".join(f"{id_}: {why}" for id_, why in sorted(refusals.items()))
        raise NoClusterError(f"No cluster can run this template ({reasons}).")
    return able


def _why_not(cluster: Candidate, need: Requirement) -> str | None:
    if cluster.runtime is None:
        return "its agent has never connected"
    if cluster.runtime not in need.runtimes:
        kinds = ", ".join(sorted(need.runtimes - {RuntimeKind.NULL})) or "none of ours"
        return f"it runs {cluster.runtime}, the template needs {kinds}"
    missing = {k: v for k, v in need.labels.items() if cluster.labels.get(k) != v}
    if missing:
        return f"it lacks the labels {missing}"
    if need.architectures and _architecture(cluster.architecture or "") not in need.architectures:
        return f"its architecture is {cluster.architecture or 'not known'}"
    return None


def _load(cluster: Candidate, demand: Demand, overcommit: Overcommit) -> float:
    """How full its fullest resource would be; above 1 it does not fit.

    A cluster that names no CPU or no memory does not limit it.
    """
    capacity = cluster.capacity
    if capacity is None or capacity.max_sessions == 0:
        return float("inf")
    shares = [(cluster.reserved_sessions + 1) / capacity.max_sessions]
    if capacity.cpu > 0:
        room = capacity.cpu * 1000 * overcommit.cpu
        shares.append((cluster.reserved_cpu_milli + demand.cpu_milli) / room)
    if capacity.memory > 0:
        room = capacity.memory * overcommit.memory
        shares.append((cluster.reserved_memory + demand.memory_bytes) / room)
    return max(shares)


def _architecture(name: str) -> str:
    return _ARCHITECTURES.get(name, name)


def _names(clusters: Iterable[Candidate]) -> str:
    return ", ".join(sorted(cluster.id for cluster in clusters))
