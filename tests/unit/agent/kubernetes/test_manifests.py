"""The resources of a session, whole: what is compared here is what the cluster gets."""

from dataclasses import replace
from typing import Any

import pytest

from streamspace_agent.runtimes.kubernetes import manifests
from streamspace_agent.runtimes.kubernetes.options import Egress, PodOptions
from streamspace_common.contracts.catalog import (
    Connection,
    EnvVar,
    Metadata,
    Port,
    Protocol,
    ResourceAmounts,
    TemplateManifest,
    TemplateSpec,
    VolumeMount,
)
from streamspace_common.contracts.ids import SessionId, TemplateId, UserId
from streamspace_common.contracts.sessions import DesiredState, Owner, SessionSpec

S = SessionId("ada-desktop-00000001")
OWNER = f"usr-{'0' * 32}"
OPTIONS = PodOptions(namespace="sessions", egress_denied=("10.0.0.0/8", "fc00::/7"))
UID = "6f9c2a3e-0000-0000-0000-000000000001"


def spec(**changes: Any) -> SessionSpec:
    template = {
        "display_name": "Desktop",
        "base_image": "example.org/desktop:1",
        "connection": Connection(protocol=Protocol.VNC, port=5901),
        "env": (EnvVar(name="GREETING", value="hello"),),
    } | changes.pop("template", {})
    whole = {
        "session_id": S,
        "owner": Owner(user_id=UserId(OWNER), username="ada"),
        "template_id": TemplateId("starter_desktop"),
        "template_digest": "0" * 64,
        "template_manifest": TemplateManifest(
            metadata=Metadata(name="desktop"), spec=TemplateSpec(**template)
        ),
        "resources": ResourceAmounts(cpu="2", memory="4Gi"),
        "home": "ada-00000000",
        "env": {"LOCALE": "de_DE"},
    }
    return SessionSpec(**(whole | changes))


METADATA = {
    "name": S,
    "namespace": "sessions",
    "labels": {
        "app.kubernetes.io/managed-by": "streamspace-agent",
        "app.kubernetes.io/name": "streamspace-session",
        "stream.space/session": S,
        "stream.space/owner": OWNER,
    },
    "annotations": {
        "stream.space/username": "ada",
        "stream.space/template": "starter_desktop",
        "stream.space/generation": "7",
    },
    "ownerReferences": [
        {
            "apiVersion": "stream.space/v1alpha1",
            "kind": "Session",
            "name": S,
            "uid": UID,
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ],
}


def test_a_raw_vnc_session_is_this_deployment() -> None:
    assert manifests.deployment(spec(), 7, UID, OPTIONS) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": METADATA,
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 0,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"stream.space/session": S}},
            "template": {
                "metadata": {
                    "labels": METADATA["labels"],
                    "annotations": {
                        "stream.space/username": "ada",
                        "stream.space/template": "starter_desktop",
                    },
                },
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "hostname": S,
                    "terminationGracePeriodSeconds": 10,
                    "securityContext": {
                        "fsGroup": 1000,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "tolerations": [
                        {
                            "key": "node.kubernetes.io/not-ready",
                            "operator": "Exists",
                            "effect": "NoExecute",
                            "tolerationSeconds": 30,
                        },
                        {
                            "key": "node.kubernetes.io/unreachable",
                            "operator": "Exists",
                            "effect": "NoExecute",
                            "tolerationSeconds": 30,
                        },
                    ],
                    "containers": [
                        {
                            "name": "session",
                            "image": "example.org/desktop:1",
                            "imagePullPolicy": "IfNotPresent",
                            "env": [
                                {"name": "PUID", "value": "1000"},
                                {"name": "PGID", "value": "1000"},
                                {"name": "TZ", "value": "Etc/UTC"},
                                {"name": "HOME", "value": "/home/user"},
                                {"name": "GREETING", "value": "hello"},
                                {"name": "LOCALE", "value": "de_DE"},
                                {"name": "STREAMSPACE_SESSION_ID", "value": S},
                            ],
                            "ports": [{"name": "vnc", "containerPort": 5901, "protocol": "TCP"}],
                            "resources": {
                                "requests": {"cpu": "500m", "memory": "2048Mi"},
                                "limits": {"cpu": "2000m", "memory": "4096Mi"},
                            },
                            "volumeMounts": [
                                {"name": "home", "mountPath": "/home/user"},
                                {"name": "shm", "mountPath": "/dev/shm"},
                            ],
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["AUDIT_WRITE", "MKNOD", "NET_RAW"]},
                            },
                        }
                    ],
                    "volumes": [
                        {
                            "name": "home",
                            "persistentVolumeClaim": {"claimName": "home-ada-00000000"},
                        },
                        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}},
                    ],
                },
            },
        },
    }


def test_hibernation_is_the_same_deployment_without_a_pod() -> None:
    running = manifests.deployment(spec(), 7, UID, OPTIONS)
    resting = manifests.deployment(spec(), 7, UID, OPTIONS, replicas=0)
    assert resting.pop("spec") == running.pop("spec") | {"replicas": 0}
    assert resting == running


def test_the_pods_template_says_nothing_of_the_generation() -> None:
    """Otherwise raising the generation would start the desktop anew."""
    one, two = (manifests.deployment(spec(), n, UID, OPTIONS) for n in (1, 2))
    assert one["spec"] == two["spec"]


def test_the_service_has_every_declared_port_and_the_one_viewers_use() -> None:
    ports = (
        Port(name="http", container_port=3000),
        Port(name="Not A Name!", container_port=3001),
        Port(name="http", container_port=3002),
        Port(name="voice", container_port=4000, protocol="udp"),
        Port(name="again", container_port=3000),
    )
    assert manifests.service(spec(template={"ports": ports}), 7, UID, OPTIONS) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": METADATA,
        "spec": {
            "clusterIP": "None",
            "selector": {"stream.space/session": S},
            "ports": [
                {"name": "http", "port": 3000, "targetPort": 3000, "protocol": "TCP"},
                {"name": "p3001-tcp", "port": 3001, "targetPort": 3001, "protocol": "TCP"},
                {"name": "p3002-tcp", "port": 3002, "targetPort": 3002, "protocol": "TCP"},
                {"name": "voice", "port": 4000, "targetPort": 4000, "protocol": "UDP"},
                {"name": "vnc", "port": 5901, "targetPort": 5901, "protocol": "TCP"},
            ],
        },
    }


def test_only_agents_get_in_and_private_networks_are_out_of_reach() -> None:
    assert manifests.network_policy(spec(), 7, UID, OPTIONS) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": METADATA,
        "spec": {
            "podSelector": {"matchLabels": {"stream.space/session": S}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": "streamspace-agent"}
                            },
                            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "agent"}},
                        }
                    ],
                    "ports": [{"protocol": "TCP", "port": 5901}],
                }
            ],
            "egress": [
                {
                    "to": [
                        {
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": "kube-system"}
                            },
                            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                        }
                    ],
                    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
                },
                {
                    "to": [
                        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}},
                        {"ipBlock": {"cidr": "::/0", "except": ["fc00::/7"]}},
                    ]
                },
            ],
        },
    }


@pytest.mark.parametrize(("egress", "rules"), [(Egress.ALL, 1), (Egress.NONE, 1)])
def test_sessions_may_be_let_out_everywhere_or_nowhere(egress: Egress, rules: int) -> None:
    policy = manifests.network_policy(spec(), 7, UID, replace(OPTIONS, egress=egress))
    out = policy["spec"]["egress"]
    assert (len(out), out == [{}]) == (rules, egress is Egress.ALL)


def test_the_home_belongs_to_the_user_and_not_to_the_session() -> None:
    options = replace(OPTIONS, storage_class="fast", home_size="5Gi")
    assert manifests.home_claim(spec(), options) == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "home-ada-00000000",
            "namespace": "sessions",
            "labels": {
                "app.kubernetes.io/managed-by": "streamspace-agent",
                "app.kubernetes.io/name": "streamspace-home",
                "stream.space/home": "ada-00000000",
                "stream.space/owner": OWNER,
            },
            "annotations": {"stream.space/username": "ada"},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "5Gi"}},
            "storageClassName": "fast",
        },
    }


def test_the_record_holds_all_that_is_needed_to_start_again() -> None:
    wanted = spec()
    record = manifests.session_resource(S, 3, DesiredState.RUNNING, wanted, OPTIONS)
    assert record["metadata"]["name"] == S
    assert SessionSpec.model_validate(record["spec"].pop("session")) == wanted
    assert record["spec"] == {
        "generation": 3,
        "state": "running",
        "deleteHome": False,
        "user": "ada",
        "template": "starter_desktop",
        "templateDigest": "0" * 64,
        "image": "example.org/desktop:1",
        "home": "ada-00000000",
        "persistentHome": True,
        "resources": {"cpu": "2", "memory": "4Gi"},
    }


def test_a_stop_of_a_session_never_heard_of_leaves_a_record_of_its_generation() -> None:
    record = manifests.session_resource(S, 3, DesiredState.TERMINATED, None, OPTIONS)
    assert record["spec"] == {"generation": 3, "state": "terminated", "deleteHome": False}


def pod(wanted: SessionSpec, options: PodOptions = OPTIONS) -> Any:
    return manifests.deployment(wanted, 1, UID, options)["spec"]["template"]["spec"]


def test_a_web_client_is_probed_by_http_and_an_rfb_port_never_by_tcp() -> None:
    web = {"connection": Connection(protocol=Protocol.HTTP, port=3000, path="/app/")}
    (container,) = pod(spec(template=web))["containers"]
    assert container["readinessProbe"] == {
        "httpGet": {"path": "/app/", "port": 3000},
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        "failureThreshold": 30,
    }
    assert "tcpSocket" not in repr(pod(spec()))
    assert "Probe" not in repr(pod(spec()))


def test_linuxserver_images_begin_as_root_and_keep_their_home_in_config() -> None:
    (container,) = pod(spec(template={"base_image": "lscr.io/linuxserver/webtop:latest"}))[
        "containers"
    ]
    assert "allowPrivilegeEscalation" not in container["securityContext"]
    assert container["volumeMounts"][0] == {"name": "home", "mountPath": "/config"}
    assert "HOME" not in {each["name"] for each in container["env"]}


def test_the_templates_mounts_are_the_home_and_folders_of_it() -> None:
    mounts = (
        VolumeMount(name="projects", mount_path="/projects"),
        VolumeMount(name="user-home", mount_path="/home/dev"),
    )
    (container,) = pod(spec(template={"volume_mounts": mounts}))["containers"]
    assert container["volumeMounts"] == [
        {"name": "home", "mountPath": "/home/dev"},
        {"name": "home", "mountPath": "/projects", "subPath": ".streamspace/desktop/projects"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]


def test_a_home_that_is_not_kept_is_an_empty_folder() -> None:
    assert pod(spec(persistent_home=False))["volumes"][0] == {"name": "home", "emptyDir": {}}


def test_the_template_says_how_much_shared_memory_it_needs() -> None:
    volumes = pod(spec(template={"shm_size": "1Gi"}))["volumes"]
    assert volumes[1]["emptyDir"]["sizeLimit"] == "1024Mi"


def test_what_the_settings_say_of_nodes_and_registries_reaches_the_pod() -> None:
    options = replace(
        OPTIONS,
        node_selector={"pool": "desktops"},
        tolerations=({"key": "gpu", "operator": "Exists"},),
        image_pull_secrets=("registry",),
        image_pull_policy="Always",
        runtime_class="gvisor",
    )
    made = pod(spec(), options)
    assert made["nodeSelector"] == {"pool": "desktops"}
    assert made["tolerations"][0] == {"key": "gpu", "operator": "Exists"}
    assert made["imagePullSecrets"] == [{"name": "registry"}]
    assert made["containers"][0]["imagePullPolicy"] == "Always"
    assert made["runtimeClassName"] == "gvisor"


def test_the_template_may_change_our_defaults_and_the_session_the_templates() -> None:
    wanted = spec(
        template={"env": (EnvVar(name="TZ", value="Asia/Tokyo"), EnvVar(name="A", value="1"))},
        env={"A": "2", "STREAMSPACE_SESSION_ID": "another"},
    )
    values = {e["name"]: e["value"] for e in pod(wanted)["containers"][0]["env"]}
    assert (values["TZ"], values["A"]) == ("Asia/Tokyo", "2")
    assert values["STREAMSPACE_SESSION_ID"] == S


def test_viewers_get_to_declared_tcp_ports_only() -> None:
    ports = (Port(name="a", container_port=1000), Port(name="b", container_port=9, protocol="UDP"))
    manifest = spec(template={"ports": ports}).template_manifest
    assert manifests.ports_of(manifest) == {1000, 5901}
