"""What an agent is told: `STREAMSPACE_AGENT_<FIELD>` in the environment."""

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity
from streamspace_common.contracts.ids import ClusterId, ClusterIdText
from streamspace_common.runtime.settings import ServiceSettings, service_config

_GIB = 1024**3
_MIB = 1024**2
_MEMORY_PER_DESKTOP = _GIB // 2
"""An X server, a window manager and a browser with a page or two."""
_DESKTOPS_PER_CPU = 10


class AgentSettings(ServiceSettings):
    model_config: ClassVar[SettingsConfigDict] = service_config("agent")

    enrolment_file: Path | None = Field(
        default=None,
        description="The cluster's enrolment (JSON). It names the cluster, the NATS servers, the "
        "credentials and the relay, in place of the four settings for these.",
    )
    cluster_id: ClusterIdText = Field(
        default=ClusterId("local"),
        description="The cluster this agent serves.",
    )
    tunnel_url: str | None = Field(
        default=None,
        description="Base address of the relay; tunnels are dialled back to it and nowhere else.",
    )
    instance: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?$",
        description="Name of this replica. By default the host's name and four random digits.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="What placement may ask for, as a JSON object."
    )
    runtime: RuntimeKind = Field(
        default=RuntimeKind.PROCESS, description="What sessions are carried out with."
    )
    state_dir: Path = Field(
        default=Path(".streamspace/agent"),
        description="Homes and the agent's memory. Replicas on one machine may share it.",
    )
    runtime_dir: Path | None = Field(
        default=None,
        description="Where sessions' sockets lie; its path must be short (63 characters). By "
        "default below the state directory, or in $XDG_RUNTIME_DIR or /tmp if that is too long.",
    )
    on_exit: Literal["keep", "stop"] = Field(
        default="keep",
        description="What becomes of running sessions when the agent ends: `keep` lets them run "
        "and the next agent adopts them; `stop` ends them and the next agent starts them again.",
    )
    concurrency: int = Field(
        default=16,
        ge=1,
        le=64,
        description="Commands carried out at once. A start is mostly waiting; more than the "
        "consumer's 64 unacknowledged messages never arrive.",
    )
    max_sessions: int | None = Field(
        default=None,
        ge=0,
        description="Sessions this machine can hold. By default as many as its memory (512 MiB "
        "each) and processors (10 each) bear.",
    )
    cpu: float | None = Field(
        default=None, gt=0, description="Cores to offer. By default those of this machine."
    )
    memory: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]*(Ki|Mi|Gi|Ti)?$",
        description="Memory to offer, as `64Gi`. By default that of this machine.",
    )
    heartbeat_interval: float = Field(
        default=5.0, gt=0, description="Seconds. The control plane misses three before it worries."
    )
    inventory_interval: float = Field(
        default=60.0, gt=0, description="Seconds between full reports of what is held."
    )
    clock_leeway: float = Field(
        default=5.0,
        ge=0,
        description="Seconds a command may be late by this machine's clock, which may be off.",
    )
    retry_first: float = Field(
        default=1.0,
        gt=0,
        description="Seconds before a failed command is tried again; doubled each time.",
    )
    retry_limit: float = Field(default=60.0, gt=0, description="Seconds between tries at the most.")

    geometry: str = Field(
        default="1280x800",
        pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$",
        description="A desktop's size until a viewer asks for its own.",
    )
    kill_grace: float = Field(
        default=2.0, ge=0, description="Seconds programs get to end before they are killed."
    )
    start_timeout: float = Field(
        default=30.0, gt=0, description="Seconds a desktop may take until it answers."
    )
    window_patience: float = Field(
        default=2.0,
        ge=0,
        description="Seconds to wait for the application's window before the desktop counts as "
        "ready without it: slow programs start in front of the user's eyes.",
    )
    min_free_space: int = Field(
        default=64 * _MIB, ge=0, description="Bytes that must be free to start a session."
    )

    null_ledger: Path | None = Field(
        default=None, description="The null runtime's file; by default in the state directory."
    )
    null_start_delay: float = Field(default=0.0, ge=0, description="Seconds a null start takes.")
    null_stop_delay: float = Field(default=0.0, ge=0, description="Seconds a null stop takes.")
    null_delay_jitter: float = Field(
        default=0.0, ge=0, le=1, description="Share by which these delays vary."
    )
    null_failure_rate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of null operations that fail but may be retried.",
    )
    null_fatal_rate: float = Field(
        default=0.0, ge=0, le=1, description="Share of null starts that fail for good."
    )
    null_seed: int | None = Field(default=None, description="Makes the above repeatable.")


def offered_capacity(settings: AgentSettings) -> Capacity:
    """What the settings offer, and where they are silent what this machine can hold."""
    cpu = settings.cpu or float(len(os.sched_getaffinity(0)))
    if settings.memory is not None:
        memory = _bytes(settings.memory)
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bearable = max(1, min(int(cpu * _DESKTOPS_PER_CPU), memory // _MEMORY_PER_DESKTOP))
    sessions = bearable if settings.max_sessions is None else settings.max_sessions
    return Capacity(max_sessions=sessions, cpu=cpu, memory=memory)


def _bytes(amount: str) -> int:
    digits = amount.rstrip("KMGTi")
    exponent = ("", "Ki", "Mi", "Gi", "Ti").index(amount.removeprefix(digits))
    return int(digits) << (10 * exponent)
