"""How much room the cluster has for sessions, as far as it may be asked."""

from collections.abc import Iterable
from typing import Any, Final

from streamspace_agent.runtimes.containers import quantities
from streamspace_agent.runtimes.kubernetes import kinds
from streamspace_agent.runtimes.kubernetes.api import ClusterApi
from streamspace_agent.runtimes.kubernetes.errors import ApiError, ForbiddenError
from streamspace_agent.runtimes.kubernetes.kinds import Manifest
from streamspace_agent.runtimes.kubernetes.options import KubernetesOptions
from streamspace_common.contracts.clusters import Capacity
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_SYSTEM_PODS: Final = 10
"""Per node, what a cluster needs of the kubelet's number of pods for itself."""


class Nodes:
    """Adds up what the nodes offer, each time it is told to; else the settings count."""

    def __init__(self, api: ClusterApi, options: KubernetesOptions) -> None:
        self._api = api
        self._options = options
        self._readable = not options.fixed_capacity
        self.capacity = options.capacity

    async def refresh(self) -> None:
        """Ask the cluster once more."""
        if not self._readable:
            return
        try:
            nodes, _ = await self._api.list(kinds.NODE)
        except ForbiddenError:
            self._readable = False
            log.info("nodes may not be read; the settings say what the cluster can hold")
        except ApiError as error:
            log.warning("the nodes could not be read", error=str(error))
        else:
            total = added_up(nodes, self._options.pods.node_selector)
            if self._options.max_sessions is not None:
                total = _at_most(total, self._options.max_sessions)
            self.capacity = total


def added_up(nodes: Iterable[Manifest], selector: dict[str, str]) -> Capacity:
    """What the nodes can hold that sessions may run on."""
    pods, cpu, memory = 0, 0.0, 0
    for node in nodes:
        labels = node["metadata"].get("labels") or {}
        if any(labels.get(key) != value for key, value in selector.items()):
            continue
        if not _takes_pods(node):
            continue
        allocatable: dict[str, Any] = (node.get("status") or {}).get("allocatable") or {}
        pods += max(0, int(allocatable.get("pods", 0)) - _SYSTEM_PODS)
        cpu += float(quantities.amount(str(allocatable.get("cpu", "0"))))
        memory += int(quantities.amount(str(allocatable.get("memory", "0"))))
    return Capacity(max_sessions=pods, cpu=cpu, memory=memory)


def _at_most(capacity: Capacity, most: int) -> Capacity:
    return capacity.model_copy(update={"max_sessions": min(capacity.max_sessions, most)})


def _takes_pods(node: Manifest) -> bool:
    if (node.get("spec") or {}).get("unschedulable"):
        return False
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
