"""What an agent is told: `STREAMSPACE_AGENT_<FIELD>` in the environment."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from streamspace_agent.runtimes.kubernetes.options import PRIVATE_NETWORKS
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.ids import ClusterId, ClusterIdText
from streamspace_common.runtime.settings import ServiceSettings, service_config

_MIB = 1024**2


class AgentSettings(ServiceSettings):
    model_config: ClassVar[SettingsConfigDict] = service_config("agent")

    enrolment_file: Path | None = Field(
        default=None,
        description="The cluster's enrolment (JSON). It names the cluster, the NATS servers, the "
        "credentials and the relay, in place of the four settings for these. Replaced by a newer "
        "one, it is taken up without a restart.",
    )
    enrolment: SecretStr | None = Field(
        default=None,
        description="The enrolment itself, as JSON or as that in base64, where a file is "
        "inconvenient.",
    )
    proxy: str | None = Field(
        default=None,
        pattern=r"^http://\S+$",
        description="Forward proxy (`http://[user:password@]host:port`) that leads to `wss://` "
        "NATS servers and to the relay. By default what HTTPS_PROXY and HTTP_PROXY say; NO_PROXY "
        "counts for either.",
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
    effects_file: Path | None = Field(
        default=None,
        description="Where to write down what was done to each session, one JSON object a line: "
        "time, replica, session, generation, effect, and how far it came. Replicas on one machine "
        "may share it. It grows until somebody moves it away. None writes nothing.",
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
        default=20.0,
        gt=0,
        description="Seconds between full reports of what is held. After an outage of the control "
        "plane alone, which no agent notices, they are what tells how sessions fared.",
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

    image_mirrors: dict[str, str] = Field(
        default_factory=dict,
        description="kubernetes, docker: beginnings of images' names and what stands there "
        'instead, as `{"streamspace/": "registry.example.org/streamspace/"}`. The longest counts.',
    )

    namespace: str = Field(
        default="streamspace-sessions",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="kubernetes: where sessions are. A cluster's agents have one of their own.",
    )
    agent_namespace: str = Field(
        default="streamspace-agent",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="kubernetes: where the agents' pods are, the only ones that sessions listen "
        "to. They are known by the label `app.kubernetes.io/name=agent`.",
    )
    kubeconfig: Path | None = Field(
        default=None,
        description="kubernetes: how to reach the cluster. By default the pod's own service "
        "account, and outside of a cluster the file that kubectl uses.",
    )
    kubeconfig_context: str | None = Field(
        default=None, description="kubernetes: the context to use, if not the file's current one."
    )
    tunnel: Literal["auto", "pod", "port-forward"] = Field(
        default="auto",
        description="kubernetes: how streams get to a session: straight to its pod, or through "
        "the API server. `auto` goes straight where the agent runs as a pod.",
    )
    on_drift: Literal["repair", "report"] = Field(
        default="repair",
        description="kubernetes: what becomes of a session whose pod or Deployment somebody else "
        "removed or changed: `repair` brings it back, `report` fails it.",
    )
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        default="IfNotPresent", description="kubernetes: when session images are pulled."
    )
    image_pull_secrets: tuple[str, ...] = Field(
        default=(),
        description="kubernetes: secrets with registries' credentials, as a JSON list of names.",
    )
    storage_class: str | None = Field(
        default=None, description="kubernetes: of homes; by default the cluster's own default."
    )
    home_size: str = Field(
        default="10Gi",
        pattern=r"^[1-9][0-9]*(Ki|Mi|Gi|Ti)?$",
        description="kubernetes: how much a new home can hold.",
    )
    home_access_mode: Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"] = Field(
        default="ReadWriteOnce",
        description="kubernetes: `ReadWriteMany` lets a user's sessions share the home from "
        "different nodes, where the storage class can do that.",
    )
    shm_size: str = Field(
        default="512Mi",
        pattern=r"^[1-9][0-9]*(Ki|Mi|Gi|Ti)?$",
        description="kubernetes: /dev/shm of sessions whose template does not say; browsers "
        "crash without some.",
    )
    pod_grace: int = Field(
        default=10,
        ge=1,
        description="kubernetes: seconds a session gets to end before it is killed.",
    )
    cpu_request_share: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="kubernetes: share of a session's CPU that is reserved on its node. The "
        "control plane promises CPU four times over by default.",
    )
    memory_request_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="kubernetes: as for CPU; memory is promised twice over by default.",
    )
    session_egress: Literal["internet", "all", "none"] = Field(
        default="internet",
        description="kubernetes: where sessions may connect to. `internet` leaves out the "
        "networks of `session_egress_denied`.",
    )
    session_egress_denied: tuple[str, ...] = Field(
        default=PRIVATE_NETWORKS,
        description="kubernetes: networks out of sessions' reach, the cluster's own among them.",
    )
    node_selector: dict[str, str] = Field(
        default_factory=dict,
        description="kubernetes: labels of the nodes that sessions run on, as a JSON object.",
    )
    tolerations: tuple[dict[str, Any], ...] = Field(
        default=(),
        description="kubernetes: taints that sessions put up with, as a JSON list.",
    )
    lost_node_patience: int = Field(
        default=30,
        ge=0,
        description="kubernetes: seconds a node may be silent, once the cluster has noticed, "
        "before its sessions are begun anew on another one.",
    )
    runtime_class: str | None = Field(
        default=None, description="kubernetes: for instance `gvisor`, where nodes have it."
    )
    start_patience: float = Field(
        default=240.0,
        gt=0,
        description="kubernetes: seconds between two steps of a start: for room, the image, the "
        "session itself. Then it fails with the reason.",
    )
    pull_patience: float = Field(
        default=20.0,
        ge=0,
        description="kubernetes: seconds a registry may be out of reach before a start fails. "
        "One that says that there is no such image is believed at once.",
    )
    fetch_patience: float = Field(
        default=1800.0,
        ge=0,
        description="kubernetes: seconds a node may take to fetch an image. Big ones take "
        "minutes the first time, and nodes do not tell how far they are.",
    )
    api_patience: float = Field(
        default=60.0,
        ge=0,
        description="kubernetes: seconds a request is repeated while the API server is away.",
    )
    api_qps: float = Field(
        default=100.0, gt=0, description="kubernetes: requests a second in the long run."
    )
    api_burst: int = Field(
        default=500,
        ge=1,
        description="kubernetes: requests at once; a start makes about ten.",
    )

    docker_host: str | None = Field(
        default=None,
        pattern=r"^(unix|tcp|http|https)://\S+$",
        description="The container engine's address. By default $DOCKER_HOST, or else the default "
        "socket. Streams go to the containers' own addresses, so this machine has to reach them.",
    )
    docker_prefix: str = Field(
        default="streamspace",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$",
        description="Begins the name of every container, volume and network. Agents of one "
        "cluster share it; those of two clusters on one engine must not.",
    )
    docker_start_timeout: float = Field(
        default=180.0,
        gt=0,
        description="Seconds a container may take until its session answers, once its image is "
        "here. The first start of a big image is slow.",
    )
    docker_stop_grace: int = Field(
        default=5, ge=0, description="Seconds a container's programs get to end."
    )
    docker_shm_size: str = Field(
        default="512Mi",
        pattern=r"^[1-9][0-9]*(Ki|Mi|Gi)?$",
        description="Shared memory of a session whose template does not say; browsers need it.",
    )
    docker_processes: int = Field(
        default=4096, ge=16, description="Processes and threads a session may have."
    )
    docker_user: int = Field(
        default=1000,
        ge=0,
        description="User and group (PUID, PGID) of images that let one choose.",
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
    null_stream: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$",
        description="host:port that null sessions' streams lead to, each with its session's id "
        "as the first line. By default a stream sends back what it gets.",
    )
