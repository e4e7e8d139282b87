"""The cluster that the other tests stand on is a real one."""

import ssl
import tempfile
import time

import pytest
import websockets.sync.client
from tests.kubernetes.onenode import machine
from tests.kubernetes.onenode.cluster import Cluster
from tests.kubernetes.pods import apply, inside, session_pod, wait_until_ready

import kubernetes


@pytest.fixture
def configuration(cluster):
    found = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(cluster.kubeconfig), client_configuration=found)
    found.proxy = None
    return found


def test_a_session_answers_through_port_forward(cluster, namespace, configuration):
    apply(cluster, namespace, session_pod("desktop"))
    wait_until_ready(cluster, namespace, "desktop")
    address = configuration.host.replace("https://", "wss://")
    path = f"/api/v1/namespaces/{namespace}/pods/desktop/portforward?ports=5900"
    trusted = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        trusted.load_cert_chain(configuration.cert_file, configuration.key_file)
    settings = configuration.auth_settings().values()
    with websockets.sync.client.connect(
        address + path,
        subprotocols=[websockets.Subprotocol("v4.channel.k8s.io")],
        additional_headers={setting["key"]: setting["value"] for setting in settings},
        ssl=trusted,
        proxy=None,
    ) as forward:
        # The first message of each channel tells the port; channel 0 is the data then.
        port = (5900).to_bytes(2, "little")
        assert {forward.recv(10), forward.recv(10)} == {b"\x00" + port, b"\x01" + port}
        assert forward.recv(10) == b"\x00RFB 003.008\n"


def test_a_service_has_a_name_and_an_address(cluster, namespace):
    apply(
        cluster,
        namespace,
        session_pod("desktop"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "screen"},
            "spec": {"selector": {"app": "desktop"}, "ports": [{"port": 80, "targetPort": 5900}]},
        },
    )
    wait_until_ready(cluster, namespace, "desktop")
    banner = inside(
        cluster, namespace, "desktop",
        "for i in {1..50}; do exec 3<>/dev/tcp/screen/80 && head -c 12 <&3 && break; sleep 0.1; done",
    )  # fmt: skip
    assert banner == "RFB 003.008\n"


def test_a_claim_gets_a_volume_that_any_user_may_write_to(cluster, namespace):
    apply(
        cluster,
        namespace,
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "home"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
        session_pod(
            "desktop",
            container={"volumeMounts": [{"name": "home", "mountPath": "/home/session"}]},
            volumes=[{"name": "home", "persistentVolumeClaim": {"claimName": "home"}}],
            securityContext={"fsGroup": 1000},
        ),
    )
    wait_until_ready(cluster, namespace, "desktop")
    assert inside(cluster, namespace, "desktop", "echo kept > ~/note; cat ~/note") == "kept\n"


def test_tokens_of_service_accounts_are_good(cluster, namespace):
    apply(cluster, namespace, session_pod("desktop"))
    wait_until_ready(cluster, namespace, "desktop")
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    token = inside(cluster, namespace, "desktop", f"cat {folder}/token")
    # With the certificate that pods are given, and nothing of the admin's.
    configuration = kubernetes.client.Configuration()
    configuration.host = cluster.server
    configuration.proxy = None
    configuration.api_key = {"authorization": f"Bearer {token}"}
    with tempfile.NamedTemporaryFile("w") as authority:
        authority.write(inside(cluster, namespace, "desktop", f"cat {folder}/ca.crt"))
        authority.flush()
        configuration.ssl_ca_cert = authority.name
        with kubernetes.client.ApiClient(configuration) as client:
            review = kubernetes.client.AuthenticationV1Api(client).create_self_subject_review({})
    assert review.status.user_info.username == f"system:serviceaccount:{namespace}:default"
    reached = inside(
        cluster, namespace, "desktop", "exec 3<>/dev/tcp/kubernetes.default/443; echo $?"
    )
    assert reached == "0\n"


def test_an_image_that_does_not_exist_is_refused_at_once(cluster, namespace):
    apply(cluster, namespace, session_pod("desktop", container={"image": "nowhere.test/nothing:1"}))
    path = "{.status.containerStatuses[0].state.waiting.reason}"
    reason = ""
    deadline = time.monotonic() + 30
    while reason not in {"ErrImagePull", "ImagePullBackOff"} and time.monotonic() < deadline:
        time.sleep(0.2)
        reason = cluster.kubectl(
            "get", "pod/desktop", f"--namespace={namespace}", f"--output=jsonpath={path}"
        )
    assert reason in {"ErrImagePull", "ImagePullBackOff"}


def test_the_api_server_comes_back_with_everything(cluster, namespace):
    with cluster.apiserver_down(), pytest.raises(machine.MachineError):
        cluster.kubectl("get", "nodes", "--request-timeout=2s")
    assert namespace in cluster.kubectl("get", "namespaces")


def test_the_network_heeds_its_policies(cluster, namespace):
    if not isinstance(cluster, Cluster):
        pytest.skip("whether policies are enforced is a property of the network of KUBECONFIG's")
    apply(
        cluster, namespace, session_pod("guarded"), session_pod("friend"), session_pod("stranger")
    )
    for pod in ("guarded", "friend", "stranger"):
        wait_until_ready(cluster, namespace, pod)
    address = cluster.kubectl(
        "get", "pod/guarded", f"--namespace={namespace}", "--output=jsonpath={.status.podIP}"
    )
    reach = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/5900 && head -c 3 <&3' || true"
    assert inside(cluster, namespace, "stranger", reach) == "RFB"
    apply(
        cluster,
        namespace,
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "friends-only"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "guarded"}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {
                        "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}],
                        "ports": [{"port": 5900}],
                    }
                ],
            },
        },
    )
    deadline = time.monotonic() + 20
    while inside(cluster, namespace, "stranger", reach) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert inside(cluster, namespace, "stranger", reach) == ""
    assert inside(cluster, namespace, "friend", reach) == "RFB"
    # It may say nothing to anybody itself, not even ask for a name.
    own = cluster.kubectl(
        "get", "pod/friend", f"--namespace={namespace}", "--output=jsonpath={.status.podIP}"
    )
    assert inside(cluster, namespace, "guarded", reach.replace(address, own)) == ""
    assert (
        inside(cluster, namespace, "guarded", "getent hosts kubernetes.default || echo no")
        == "no\n"
    )
    assert "kubernetes" in inside(cluster, namespace, "friend", "getent hosts kubernetes.default")
