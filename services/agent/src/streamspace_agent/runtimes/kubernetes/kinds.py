"""The kinds of resources the agent handles, where they are, and the names it gives."""

from dataclasses import dataclass
from typing import Any, Final

Manifest = dict[str, Any]
"""A resource as Kubernetes writes it down."""

FIELD_MANAGER: Final = "streamspace-agent"

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
NAME: Final = "app.kubernetes.io/name"
SESSION_LABEL: Final = "stream.space/session"
OWNER_LABEL: Final = "stream.space/owner"
HOME_LABEL: Final = "stream.space/home"
GENERATION: Final = "stream.space/generation"
USERNAME: Final = "stream.space/username"
TEMPLATE: Final = "stream.space/template"

OURS: Final = f"{MANAGED_BY}={FIELD_MANAGER}"
"""Selects what an agent made."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of resource; `group` is empty for the core one."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, sub: str | None = None) -> str:
        """Where resources of this kind are; without a namespace those of the cluster."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        tail = "".join(f"/{part}" for part in (name, sub) if part)
        return f"{root}{scope}/{self.plural}{tail}"


SESSION: Final = Kind("stream.space", "v1alpha1", "sessions", "Session")
DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")
SERVICE: Final = Kind("", "v1", "services", "Service")
CLAIM: Final = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
NETWORK_POLICY: Final = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
POD: Final = Kind("", "v1", "pods", "Pod")
EVENT: Final = Kind("", "v1", "events", "Event")
NODE: Final = Kind("", "v1", "nodes", "Node")
