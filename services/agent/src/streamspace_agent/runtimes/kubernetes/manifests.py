"""The resources of a session, built from its spec: pure, so that tests compare them whole.

What a session may depend on and what protects others from it is decided here. Some of it
is easily got wrong:

* An RFB port is never probed by `tcpSocket`: servers count each such connection as a
  failed login and lock out the prober's address, port-forward included. The agent asks
  the desktop itself, once, when its container runs.
* The pod's template says nothing of the generation, or raising it would start the
  desktop anew.
* The home has no owner but the user: it outlives every session.
"""

import re
from collections.abc import Iterable
from typing import Any

from streamspace_agent.runtimes.containers import images, quantities
from streamspace_agent.runtimes.kubernetes import kinds
from streamspace_agent.runtimes.kubernetes.kinds import Kind, Manifest
from streamspace_agent.runtimes.kubernetes.options import Egress, PodOptions
from streamspace_common.contracts.catalog import Connection, Protocol, TemplateManifest
from streamspace_common.contracts.ids import SessionId, slug
from streamspace_common.contracts.sessions import DesiredState, SessionSpec

CONTAINER = "session"
_DEFAULT_CONNECTION = Connection(protocol=Protocol.VNC, port=5900)
_PORT_NAME = re.compile(r"^(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$")
_DROPPED_CAPABILITIES = ["AUDIT_WRITE", "MKNOD", "NET_RAW"]
_SHM = "shm"
_HOME = "home"


def session_resource(
    session: SessionId,
    generation: int,
    wanted: DesiredState,
    spec: SessionSpec | None,
    options: PodOptions,
    *,
    delete_home: bool = False,
) -> Manifest:
    """The record of a session; `spec` is None for a stop of one never heard of."""
    metadata: dict[str, Any] = {
        "name": session,
        "namespace": options.namespace,
        "labels": _labels(session),
    }
    body: dict[str, Any] = {
        "generation": generation,
        "state": wanted.value,
        "deleteHome": delete_home,
    }
    if spec is not None:
        metadata["labels"] |= {kinds.OWNER_LABEL: spec.owner.user_id}
        body |= {
            "user": spec.owner.username,
            "template": spec.template_id,
            "templateDigest": spec.template_digest,
            "image": spec.template_manifest.spec.base_image or "",
            "home": spec.home,
            "persistentHome": spec.persistent_home,
            "resources": {"cpu": spec.resources.cpu, "memory": spec.resources.memory},
            "session": spec.model_dump(mode="json", by_alias=True),
        }
    return _resource(kinds.SESSION, metadata) | {"spec": body}


def deployment(
    spec: SessionSpec, generation: int, owner_uid: str, options: PodOptions, *, replicas: int = 1
) -> Manifest:
    """The Deployment of one pod, or of none while the session rests."""
    return _resource(kinds.DEPLOYMENT, _metadata(spec, generation, owner_uid, options)) | {
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            # Two pods at once would share a home, and a viewer could reach either.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {kinds.SESSION_LABEL: spec.session_id}},
            "template": {
                "metadata": {
                    "labels": _labels(spec.session_id) | _owner(spec),
                    "annotations": _annotations(spec),
                },
                "spec": _pod(spec, options),
            },
        },
    }


def service(spec: SessionSpec, generation: int, owner_uid: str, options: PodOptions) -> Manifest:
    """A name for the pod, with every port; no address of its own, as there is one pod."""
    return _resource(kinds.SERVICE, _metadata(spec, generation, owner_uid, options)) | {
        "spec": {
            "clusterIP": "None",
            "selector": {kinds.SESSION_LABEL: spec.session_id},
            "ports": [
                {
                    "name": port["name"],
                    "port": port["containerPort"],
                    "targetPort": port["containerPort"],
                    "protocol": port["protocol"],
                }
                for port in _ports(spec.template_manifest)
            ],
        },
    }


def network_policy(
    spec: SessionSpec, generation: int, owner_uid: str, options: PodOptions
) -> Manifest:
    """Nobody in but the agents; out as the settings say."""
    key, value = options.agent_label
    return _resource(kinds.NETWORK_POLICY, _metadata(spec, generation, owner_uid, options)) | {
        "spec": {
            "podSelector": {"matchLabels": {kinds.SESSION_LABEL: spec.session_id}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchLabels": {
                                    "kubernetes.io/metadata.name": options.agent_namespace
                                }
                            },
                            "podSelector": {"matchLabels": {key: value}},
                        }
                    ],
                    "ports": [
                        {"protocol": port["protocol"], "port": port["containerPort"]}
                        for port in _ports(spec.template_manifest)
                    ],
                }
            ],
            "egress": _egress(options),
        },
    }


def home_claim_name(home: str) -> str:
    return f"home-{home}"


def home_claim(spec: SessionSpec, options: PodOptions) -> Manifest:
    """The user's home, made once and shared by all sessions of the user."""
    metadata = {
        "name": home_claim_name(spec.home),
        "namespace": options.namespace,
        "labels": {
            kinds.MANAGED_BY: kinds.FIELD_MANAGER,
            kinds.NAME: "streamspace-home",
            kinds.HOME_LABEL: slug(spec.home, 63),
        }
        | _owner(spec),
        "annotations": {kinds.USERNAME: spec.owner.username},
    }
    claim: dict[str, Any] = {
        "accessModes": [options.home_access_mode],
        "resources": {"requests": {"storage": options.home_size}},
    }
    if options.storage_class is not None:
        claim["storageClassName"] = options.storage_class
    return _resource(kinds.CLAIM, metadata) | {"spec": claim}


def ports_of(manifest: TemplateManifest) -> frozenset[int]:
    """The TCP ports a viewer's stream may go to."""
    return frozenset(
        port["containerPort"] for port in _ports(manifest) if port["protocol"] == "TCP"
    )


def connection_of(manifest: TemplateManifest) -> Connection:
    """How the session is viewed."""
    return manifest.spec.connection or _DEFAULT_CONNECTION


def _resource(kind: Kind, metadata: Manifest) -> Manifest:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


def _labels(session: SessionId) -> dict[str, str]:
    return {
        kinds.MANAGED_BY: kinds.FIELD_MANAGER,
        kinds.NAME: "streamspace-session",
        kinds.SESSION_LABEL: session,
    }


def _owner(spec: SessionSpec) -> dict[str, str]:
    return {kinds.OWNER_LABEL: spec.owner.user_id}


def _annotations(spec: SessionSpec) -> dict[str, str]:
    return {kinds.USERNAME: spec.owner.username, kinds.TEMPLATE: spec.template_id}


def _metadata(
    spec: SessionSpec, generation: int, owner_uid: str, options: PodOptions
) -> dict[str, Any]:
    return {
        "name": spec.session_id,
        "namespace": options.namespace,
        "labels": _labels(spec.session_id) | _owner(spec),
        "annotations": _annotations(spec) | {kinds.GENERATION: str(generation)},
        "ownerReferences": [
            {
                "apiVersion": kinds.SESSION.api_version,
                "kind": kinds.SESSION.kind,
                "name": spec.session_id,
                "uid": owner_uid,
                "controller": True,
                # Some clusters would ask for rights over the owner's finalizers.
                "blockOwnerDeletion": False,
            }
        ],
    }


def _pod(spec: SessionSpec, options: PodOptions) -> Manifest:
    lost = [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": options.lost_node_patience,
        }
        for taint in ("not-ready", "unreachable")
    ]
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostname": spec.session_id,
        "terminationGracePeriodSeconds": options.grace,
        "securityContext": {
            "fsGroup": options.group,
            # A home of many files is not gone through at every start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [*options.tolerations, *lost],
        "containers": [_container(spec, options)],
        "volumes": _volumes(spec, options),
    }
    if options.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
    if options.node_selector:
        pod["nodeSelector"] = dict(options.node_selector)
    if options.runtime_class is not None:
        pod["runtimeClassName"] = options.runtime_class
    return pod


def _container(spec: SessionSpec, options: PodOptions) -> Manifest:
    manifest = spec.template_manifest
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": images.pulled_from(manifest.spec.base_image or "", options.image_mirrors),
        "imagePullPolicy": options.image_pull_policy,
        "env": _environment(spec, options),
        "ports": _ports(manifest),
        "resources": {
            "requests": {
                "cpu": quantities.cpu(spec.resources.cpu, options.cpu_request_share),
                "memory": quantities.memory(spec.resources.memory, options.memory_request_share),
            },
            "limits": {
                "cpu": quantities.cpu(spec.resources.cpu),
                "memory": quantities.memory(spec.resources.memory),
            },
        },
        "volumeMounts": _mounts(spec),
        "securityContext": _security(manifest),
    }
    probe = _readiness(connection_of(manifest))
    return container | ({"readinessProbe": probe} if probe else {})


def _security(manifest: TemplateManifest) -> Manifest:
    if images.bears_no_new_privileges(manifest):
        return {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": _DROPPED_CAPABILITIES},
        }
    return {"capabilities": {"drop": _DROPPED_CAPABILITIES}}


def _readiness(connection: Connection) -> Manifest | None:
    """How the kubelet finds out whether the session answers; None leaves it to the agent."""
    if connection.protocol is not Protocol.HTTP:
        return None
    return {
        "httpGet": {"path": connection.path, "port": connection.port},
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        # A desktop that is busy for a while is not taken from its user.
        "failureThreshold": 30,
    }


def _environment(spec: SessionSpec, options: PodOptions) -> list[Manifest]:
    """Ours first, so that templates may say otherwise; the session's own wins over both."""
    manifest = spec.template_manifest
    values = {"PUID": str(options.group), "PGID": str(options.group), "TZ": "Etc/UTC"}
    if images.home_mount(manifest) is None and not images.is_linuxserver(manifest):
        values["HOME"] = images.home_path(manifest)
    values |= {variable.name: variable.value for variable in manifest.spec.env}
    values |= spec.env
    values["STREAMSPACE_SESSION_ID"] = spec.session_id
    return [{"name": name, "value": value} for name, value in values.items()]


def _ports(manifest: TemplateManifest) -> list[Manifest]:
    """Every port that is declared, and the one viewers use; names made valid and unique."""
    connection = connection_of(manifest)
    wanted = [(p.name, p.container_port, p.protocol.upper()) for p in manifest.spec.ports]
    if (connection.port, "TCP") not in {(number, kind) for _, number, kind in wanted}:
        wanted.append((connection.protocol.value, connection.port, "TCP"))
    ports: list[Manifest] = []
    seen: set[tuple[int, str]] = set()
    names: set[str] = set()
    for name, number, protocol in wanted:
        if (number, protocol) in seen:
            continue
        seen.add((number, protocol))
        fitting = name if _PORT_NAME.match(name) and name not in names else f"p{number}-{protocol}"
        names.add(fitting := fitting.lower())
        ports.append({"name": fitting, "containerPort": number, "protocol": protocol})
    return ports


def _mounts(spec: SessionSpec) -> list[Manifest]:
    """The home, the template's other mounts as folders of it, and the shared memory."""
    manifest = spec.template_manifest
    home = images.home_path(manifest)
    mounts: list[Manifest] = [{"name": _HOME, "mountPath": home}]
    taken = {home, "/dev/shm"}  # noqa: S108 - a mount point, not a file of ours
    for mount in manifest.spec.volume_mounts:
        if mount.mount_path in taken:
            continue
        taken.add(mount.mount_path)
        folder = f".streamspace/{slug(manifest.metadata.name, 60)}/{slug(mount.name, 60)}"
        mounts.append({"name": _HOME, "mountPath": mount.mount_path, "subPath": folder})
    mounts.append({"name": _SHM, "mountPath": "/dev/shm"})  # noqa: S108 - as above
    return mounts


def _volumes(spec: SessionSpec, options: PodOptions) -> list[Manifest]:
    size = spec.template_manifest.spec.shm_size or options.shm_size
    home: Manifest = {"emptyDir": {}}
    if spec.persistent_home:
        home = {"persistentVolumeClaim": {"claimName": home_claim_name(spec.home)}}
    return [
        {"name": _HOME} | home,
        {
            "name": _SHM,
            "emptyDir": {"medium": "Memory", "sizeLimit": quantities.memory(size)},
        },
    ]


def _egress(options: PodOptions) -> list[Manifest]:
    names = {
        "to": [
            {
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": "kube-system"}
                },
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": kind, "port": 53} for kind in ("UDP", "TCP")],
    }
    match options.egress:
        case Egress.ALL:
            return [{}]
        case Egress.NONE:
            return [names]
        case Egress.INTERNET:
            denied = options.egress_denied
            return [
                names,
                {
                    "to": [
                        _all_but("0.0.0.0/0", (n for n in denied if ":" not in n)),
                        _all_but("::/0", (n for n in denied if ":" in n)),
                    ]
                },
            ]


def _all_but(everything: str, denied: Iterable[str]) -> Manifest:
    block: dict[str, Any] = {"cidr": everything}
    excepted = list(denied)
    return {"ipBlock": block | ({"except": excepted} if excepted else {})}
