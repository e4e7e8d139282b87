"""The container of a session, its volumes and its network: pure, so that tests compare them whole.

What protects others from a session is decided here:

* Sessions share one network of their own in which the engine lets no container speak to
  another. Nothing is published on the machine; streams go to the container's address.
* An image that begins as an ordinary user gets no capability at all; one that begins as
  root keeps what it needs to step down. No program gains rights on its way, except in
  images that are known not to bear it.
* No swap beyond the memory asked for, a limit of processes, shared memory of a size, logs
  that end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from streamspace_agent.runtimes.containers import images, quantities
from streamspace_agent.runtimes.docker import naming
from streamspace_agent.runtimes.docker.naming import Kind, Names
from streamspace_agent.runtimes.docker.views import ImageFacts
from streamspace_common.contracts.catalog import Connection, Protocol, TemplateManifest
from streamspace_common.contracts.ids import slug
from streamspace_common.contracts.sessions import SessionSpec

_DEFAULT_CONNECTION = Connection(protocol=Protocol.VNC, port=5900)
_DROPPED_FROM_ROOT = ["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SETPCAP"]
_SHM = "/dev/shm"  # noqa: S108 - a mount point, not a file of ours
_LOG_SIZE = "4m"
_SMALLEST_MEMORY = 6 * 2**20
"""Engines refuse less."""


@dataclass(frozen=True)
class ContainerOptions:
    """What every session's container has in common."""

    prefix: str = "streamspace"
    group: int = 1000
    """The user and group of images that choose theirs."""
    shm_size: str = "512Mi"
    processes: int = 4096
    grace: int = 2
    """Seconds its programs get to end."""
    image_mirrors: Mapping[str, str] = field(default_factory=dict)
    """Beginnings of images' names, and what stands there instead."""

    @property
    def names(self) -> Names:
        return Names(self.prefix)


def container(
    spec: SessionSpec, generation: int, image: ImageFacts, options: ContainerOptions
) -> dict[str, Any]:
    """What the engine is told to create.

    Raises:
        ValueError: an amount is not a quantity.
    """
    manifest = spec.template_manifest
    ports = ports_of(manifest)
    memory = max(int(quantities.amount(spec.resources.memory)), _SMALLEST_MEMORY)
    shm_size = manifest.spec.shm_size or options.shm_size
    return {
        "Image": images.pulled_from(manifest.spec.base_image or "", options.image_mirrors),
        "Hostname": spec.session_id,
        "Labels": options.names.labels(
            Kind.SESSION,
            {
                naming.SESSION: spec.session_id,
                naming.GENERATION: str(generation),
                naming.OWNER: spec.owner.user_id,
                naming.TEMPLATE: spec.template_id,
                naming.PORTS: ",".join(map(str, ports)),
                naming.CONNECTION: connection_of(manifest).model_dump_json(),
            },
        ),
        "Env": [f"{name}={value}" for name, value in _environment(spec, image, options).items()],
        "ExposedPorts": {f"{port}/tcp": {} for port in ports},
        "StopTimeout": options.grace,
        "HostConfig": {
            "NetworkMode": options.names.network,
            "NanoCpus": max(int(quantities.amount(spec.resources.cpu) * Decimal(10) ** 9), 10**7),
            "Memory": memory,
            "MemorySwap": memory,
            "PidsLimit": options.processes,
            "ShmSize": int(quantities.amount(shm_size)),
            "Mounts": _mounts(spec, image, options),
            "CapDrop": _DROPPED_FROM_ROOT if image.begins_as_root else ["ALL"],
            "SecurityOpt": (
                ["no-new-privileges"] if images.bears_no_new_privileges(manifest) else []
            ),
            # A desktop that ends is told of, not started again behind its user's back.
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": _LOG_SIZE, "max-file": "1"},
            },
        },
    }


def network(options: ContainerOptions) -> dict[str, Any]:
    """The network of all sessions, in which none reaches another."""
    return {
        "Name": options.names.network,
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Options": {"com.docker.network.bridge.enable_icc": "false"},
        "Labels": options.names.labels(Kind.NETWORK),
    }


def ports_of(manifest: TemplateManifest) -> tuple[int, ...]:
    """The TCP ports a stream may go to, the one that viewers use first."""
    declared = (
        port.container_port for port in manifest.spec.ports if port.protocol.upper() == "TCP"
    )
    return tuple(dict.fromkeys([connection_of(manifest).port, *declared]))


def connection_of(manifest: TemplateManifest) -> Connection:
    """How the session is viewed."""
    return manifest.spec.connection or _DEFAULT_CONNECTION


def home_path(manifest: TemplateManifest, image: ImageFacts) -> str:
    """Where the home is mounted: as the template says, else as the image does."""
    path = images.home_path(manifest)
    own = (image.environment or {}).get("HOME", "")
    # What begins as root says root's home at the most, which is not where users work.
    if path == images.HOME_PATH and own.startswith("/") and own not in {"/", "/root"}:
        return own
    return path


def _environment(spec: SessionSpec, image: ImageFacts, options: ContainerOptions) -> dict[str, str]:
    """Ours first, so that templates may say otherwise; the session's own wins over both."""
    manifest = spec.template_manifest
    values = {"PUID": str(options.group), "PGID": str(options.group), "TZ": "Etc/UTC"}
    if images.home_mount(manifest) is None and not images.is_linuxserver(manifest):
        values["HOME"] = home_path(manifest, image)
    values |= {variable.name: variable.value for variable in manifest.spec.env}
    values |= spec.env
    values["STREAMSPACE_SESSION_ID"] = spec.session_id
    return values


def _mounts(
    spec: SessionSpec, image: ImageFacts, options: ContainerOptions
) -> list[dict[str, Any]]:
    """The home, and a volume beside it for each other mount of the template."""
    manifest = spec.template_manifest
    home = home_path(manifest, image)
    mounts = [_mount(spec, home, None, options)]
    taken = {home, _SHM}
    for mount in manifest.spec.volume_mounts:
        if mount.mount_path not in taken:
            taken.add(mount.mount_path)
            folder = f"{slug(manifest.metadata.name, 60)}.{slug(mount.name, 60)}"
            mounts.append(_mount(spec, mount.mount_path, folder, options))
    return mounts


def _mount(
    spec: SessionSpec, target: str, folder: str | None, options: ContainerOptions
) -> dict[str, Any]:
    names = options.names
    labels: dict[str, str] = {naming.OWNER: spec.owner.user_id}
    if spec.persistent_home:
        source = names.home(spec.home, folder=folder)
        labels[naming.HOME] = spec.home
    else:
        source = names.temporary_home(spec.session_id, folder=folder)
        labels[naming.SESSION] = spec.session_id
    # The engine makes the volume with the container, and fills a new one with what the
    # image has there; so it belongs to whom the image says.
    return {
        "Type": "volume",
        "Source": source,
        "Target": target,
        "VolumeOptions": {"Labels": names.labels(Kind.HOME, labels)},
    }


def label_filter(names: Names, kind: Kind, session: str | None = None) -> dict[str, str]:
    """The labels by which things of a kind are found again, of one session or of all."""
    return names.labels(kind, {naming.SESSION: session} if session is not None else None)


def offered_ports(labels: Mapping[str, str]) -> frozenset[int]:
    """The ports a container's labels say that it offers."""
    return frozenset(_numbers(labels.get(naming.PORTS, "").split(",")))


def offered_connection(labels: Mapping[str, str]) -> Connection:
    """How a container's labels say that it is viewed."""
    written = labels.get(naming.CONNECTION)
    return Connection.model_validate_json(written) if written else _DEFAULT_CONNECTION


def _numbers(texts: Iterable[str]) -> Iterable[int]:
    return (int(text) for text in texts if text.isdigit())
