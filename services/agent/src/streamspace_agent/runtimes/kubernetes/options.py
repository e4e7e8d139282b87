"""What the settings say about sessions on Kubernetes."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from streamspace_common.contracts.clusters import Capacity

PRIVATE_NETWORKS = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
)
"""Where clusters, their control planes and their clouds' metadata services live."""


class OnDrift(StrEnum):
    """What becomes of a session whose resources somebody changed or removed."""

    REPAIR = "repair"
    REPORT = "report"


class Egress(StrEnum):
    """Where sessions may connect to, beside the cluster's name service."""

    INTERNET = "internet"
    ALL = "all"
    NONE = "none"


class Tunnel(StrEnum):
    """How streams get to a pod."""

    AUTO = "auto"
    POD = "pod"
    PORT_FORWARD = "port-forward"


@dataclass(frozen=True)
class Access:
    """How the cluster's API is reached.

    Without a kubeconfig the pod's own service account is used where there is one, else
    the kubeconfig that kubectl would use.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    qps: float = 100.0
    burst: int = 500
    patience: float = 60.0
    """Seconds a request is repeated while the API server does not answer."""


@dataclass(frozen=True)
class PodOptions:
    """What every session's resources have in common; times in seconds."""

    namespace: str = "streamspace-sessions"
    agent_namespace: str = "streamspace-agent"
    """Where the agents' pods are, the only ones sessions listen to."""
    agent_label: tuple[str, str] = ("app.kubernetes.io/name", "agent")
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    image_mirrors: dict[str, str] = field(default_factory=dict)
    """Beginnings of images' names, and what stands there instead."""
    storage_class: str | None = None
    home_size: str = "10Gi"
    home_access_mode: str = "ReadWriteOnce"
    group: int = 1000
    """The group that a home belongs to, and the user and group of images that choose theirs."""
    shm_size: str = "512Mi"
    grace: int = 10
    cpu_request_share: float = 0.25
    memory_request_share: float = 0.5
    egress: Egress = Egress.INTERNET
    egress_denied: tuple[str, ...] = PRIVATE_NETWORKS
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    lost_node_patience: int = 30
    runtime_class: str | None = None


@dataclass(frozen=True)
class KubernetesOptions:
    """How sessions are run on Kubernetes; times in seconds."""

    access: Access
    pods: PodOptions
    capacity: Capacity
    """Offered where the nodes may not be read, and the most sessions in any case."""
    fixed_capacity: bool = False
    """Whether `capacity` counts whatever the nodes have."""
    max_sessions: int | None = None
    tunnel: Tunnel = Tunnel.AUTO
    on_drift: OnDrift = OnDrift.REPAIR
    start_patience: float = 240.0
    pull_patience: float = 20.0
    """For a registry that does not answer; one that says no is believed at once."""
    fetch_patience: float = 1800.0
    """For a node that fetches an image, which tells nobody how far it is."""
    fetch_word: float = 30.0
    """Between two words about that."""
    watch_turn: float = 300.0
    """How long a watch lasts before it is begun anew where it was; an API server spreads its
    watches over its replicas this way."""
    stop_patience: float = 30.0
    """Beyond a pod's grace."""
    sweep_interval: float = 60.0
    records_kept: float = 30 * 86400.0
