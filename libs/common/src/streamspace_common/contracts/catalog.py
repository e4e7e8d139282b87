"""Templates and catalogs.

A manifest is a `kind: Template` document. Its JSON keys keep the manifest's own
camelCase and unknown fields are kept, so what a catalog's author wrote survives
the way through StreamSpace. `TemplateManifest` is the canonical form that
catalog-sync makes of the many shapes real catalogs hold.
"""

from enum import StrEnum
from typing import Any

from pydantic import ConfigDict, Field

from streamspace_common.contracts.base import Contract, Timestamp
from streamspace_common.contracts.ids import CatalogIdText, TemplateIdText


class RuntimeKind(StrEnum):
    """What an agent carries sessions out with."""

    PROCESS = "process"
    KUBERNETES = "kubernetes"
    DOCKER = "docker"
    NULL = "null"


class Protocol(StrEnum):
    """How a session is reached: raw RFB, or the image's own web client."""

    VNC = "vnc"
    HTTP = "http"


class Manifest(Contract):
    """Base of everything inside a manifest: unknown fields are kept."""

    model_config = ConfigDict(extra="allow")


class ResourceAmounts(Manifest):
    """Kubernetes quantities, for instance `500m` and `2Gi`."""

    cpu: str = "1000m"
    memory: str = "2Gi"


class Port(Manifest):
    name: str
    container_port: int = Field(ge=1, le=65535)
    protocol: str = "TCP"


class EnvVar(Manifest):
    name: str
    value: str = ""


class VolumeMount(Manifest):
    name: str
    mount_path: str


class Connection(Manifest):
    """How a viewer reaches the session."""

    protocol: Protocol
    port: int = Field(ge=1, le=65535)
    path: str = "/"


class ProcessSpec(Manifest):
    """What the process runtime runs inside the session's own X display.

    `command` is an argument list, never a shell line. `window_manager` starts
    openbox (and, with `panel`, a panel) before it. Without a `display` there is
    nothing but the command, which has to serve a web client of its own (a
    `connection` by `http`): on the loopback port in `STREAMSPACE_PORT`, which also
    stands wherever the command says `{port}`.
    """

    command: tuple[str, ...] = ()
    window_manager: bool = True
    panel: bool = False
    display: bool = True


class TemplateSpec(Manifest):
    display_name: str
    description: str = ""
    categories: tuple[str, ...] = ()
    icon: str | None = None
    base_image: str | None = None
    default_resources: ResourceAmounts = ResourceAmounts()
    ports: tuple[Port, ...] = ()
    env: tuple[EnvVar, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    connection: Connection | None = None
    process: ProcessSpec | None = None
    capabilities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    shm_size: str | None = None

    @property
    def process_serves_http(self) -> bool:
        """Whether its processes serve a web client, and not a display by VNC.

        Where there is an image too, `connection` is about the image, unless the
        processes have no display to show.
        """
        if self.process is None or self.connection is None:
            return False
        about_processes = self.base_image is None or not self.process.display
        return about_processes and self.connection.protocol is Protocol.HTTP


class Metadata(Manifest):
    name: str


class TemplateManifest(Manifest):
    """The canonical manifest that sessions are started from."""

    api_version: str = "stream.space/v1alpha1"
    kind: str = "Template"
    metadata: Metadata
    spec: TemplateSpec

    @property
    def runtimes(self) -> frozenset[RuntimeKind]:
        """The runtimes able to start it: processes, containers, or both.

        The null runtime starts anything; it exists for load and fault tests.
        """
        able = {RuntimeKind.NULL}
        if self.spec.process is not None:
            able.add(RuntimeKind.PROCESS)
        if self.spec.base_image:
            able |= {RuntimeKind.KUBERNETES, RuntimeKind.DOCKER}
        return frozenset(able)


class Template(Contract):
    """A template as the API lists it."""

    id: TemplateIdText
    catalog_id: CatalogIdText
    name: str = Field(description="The manifest's own metadata.name, whatever it holds.")
    display_name: str
    description: str = ""
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    icon: str | None = None
    protocol: Protocol | None = None
    runtimes: tuple[RuntimeKind, ...] = ()
    default_resources: ResourceAmounts = ResourceAmounts()
    capabilities: tuple[str, ...] = ()
    digest: str = Field(description="sha256 of the canonical manifest.")
    path: str = Field(default="", description="The file it came from, inside its catalog.")
    commit: str | None = None
    unusable: str | None = Field(
        default=None, description="Why it cannot be started on any runtime; null when it can."
    )
    updated_at: Timestamp


class TemplateDetail(Template):
    manifest: dict[str, Any] = Field(description="The canonical manifest.")


class CatalogState(StrEnum):
    PENDING = "pending"
    SYNCING = "syncing"
    SYNCED = "synced"
    FAILED = "failed"


class FileOutcome(StrEnum):
    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    SKIPPED = "skipped"
    REFUSED = "refused"


class FileReport(Contract):
    """What the last sync made of one file, and why."""

    path: str
    outcome: FileOutcome
    template_id: TemplateIdText | None = None
    reasons: tuple[str, ...] = ()


class SyncCounts(Contract):
    accepted: int = 0
    corrected: int = 0
    skipped: int = 0
    refused: int = 0
    removed: int = 0


class Catalog(Contract):
    id: CatalogIdText
    name: str
    url: str = Field(description="Without credentials, whatever was given.")
    branch: str | None = None
    built_in: bool = False
    state: CatalogState
    commit: str | None = None
    template_count: int = 0
    counts: SyncCounts = SyncCounts()
    error: str | None = None
    last_sync_at: Timestamp | None = None
    created_at: Timestamp
    version: int = Field(ge=1)
