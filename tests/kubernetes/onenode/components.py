"""How each program of the cluster is started: its arguments and the files it reads.

Everything is under one folder and, but for the API server and the node's address, on the
machine's own loopback. A program is known by the name of its log.
"""

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kubernetes.onenode import certificates
from tests.kubernetes.onenode.network import Network, pod_network

NODE = "onenode"
PAUSE = "streamspace.test/pause:1"
STORAGE_CLASS = "folders"

# name of the credentials -> user and groups that the API server sees
IDENTITIES = {
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "addons": ("system:addons", "system:masters"),
}

# Who asked for what, but for the cluster's own programs: tests of rights read it.
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": [user for user, _ in IDENTITIES.values()]},
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "None", "users": ["system:apiserver", "system:anonymous"]},
        {"level": "Metadata"},
    ],
}


@dataclass
class Components:
    """The programs of one cluster; `program` is the binary that holds Kubernetes' own."""

    state: Path
    network: Network
    cgroup: str
    program: Path

    @property
    def server(self) -> str:
        return f"https://{self.network.node}:6443"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "admin.kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def admin_token(self) -> str:
        return str(json.loads(self.kubeconfig.read_text())["users"][0]["user"]["token"])

    def write(self) -> None:
        """Keys, credentials and configuration of all of them."""
        keys = self.state / "keys"
        keys.mkdir()
        authority = certificates.authority(keys)
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        addresses = ["127.0.0.1", self.network.node, str(self.network.services[1])]
        authority.issue("apiserver", "tests", names=names, addresses=addresses)
        authority.issue("kubelet-client", "system:masters", names=[], addresses=[])
        certificates.service_account_key(keys / "service-accounts.key")
        lines = []
        for name, (user, groups) in IDENTITIES.items():
            token = secrets.token_hex(16)
            lines.append(f'{token},{user},{user},"{groups}"\n')
            self._write_kubeconfig(name, token, authority)
        (keys / "tokens.csv").write_text("".join(lines))
        self._json("audit-policy.json", AUDIT)
        self._json("kubelet.json", self._kubelet_settings())
        self._json("kube-proxy.json", self._proxy_settings())
        (self.state / "containerd.toml").write_text(self._containerd_settings())
        (self.state / "resolv.conf").write_text(f"nameserver {self.network.node}\n")
        pod_network(self.network, self.state / "cni")

    def etcd(self) -> list[str | Path]:
        return [
            "etcd", "--data-dir", self.state / "etcd", "--unsafe-no-fsync",
            "--listen-client-urls", "http://127.0.0.1:2379",
            "--advertise-client-urls", "http://127.0.0.1:2379",
            "--listen-peer-urls", "http://127.0.0.1:2380",
        ]  # fmt: skip

    def containerd(self) -> list[str | Path]:
        return ["containerd", "--config", self.state / "containerd.toml"]

    def apiserver(self) -> list[str | Path]:
        keys = self.state / "keys"
        return [
            self.program, "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=0.0.0.0", "--secure-port=6443",
            f"--advertise-address={self.network.node}",
            f"--tls-cert-file={keys}/apiserver.crt", f"--tls-private-key-file={keys}/apiserver.key",
            f"--client-ca-file={keys}/ca.crt",
            f"--kubelet-client-certificate={keys}/kubelet-client.crt",
            f"--kubelet-client-key={keys}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-cluster-ip-range={self.network.services}",
            f"--service-account-key-file={keys}/service-accounts.key",
            f"--service-account-signing-key-file={keys}/service-accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            f"--token-auth-file={keys}/tokens.csv",
            "--allow-privileged=true",
            f"--audit-policy-file={self.state}/audit-policy.json",
            f"--audit-log-path={self.state}/logs/audit.log",
        ]  # fmt: skip

    def controller_manager(self) -> list[str | Path]:
        keys = self.state / "keys"
        return [
            self.program, "kube-controller-manager",
            f"--kubeconfig={self._kubeconfig('kube-controller-manager')}",
            "--use-service-account-credentials=true", "--leader-elect=false",
            f"--service-account-private-key-file={keys}/service-accounts.key",
            f"--root-ca-file={keys}/ca.crt",
            "--bind-address=127.0.0.1",
            # A lost node is to be seen within a test's patience.
            "--node-monitor-period=2s", "--node-monitor-grace-period=20s",
        ]  # fmt: skip

    def scheduler(self) -> list[str | Path]:
        return [
            self.program, "kube-scheduler", "--leader-elect=false", "--bind-address=127.0.0.1",
            f"--kubeconfig={self._kubeconfig('kube-scheduler')}",
        ]  # fmt: skip

    def kubelet(self) -> list[str | Path]:
        return [
            self.program, "kubelet",
            f"--kubeconfig={self._kubeconfig('kubelet')}",
            f"--config={self.state}/kubelet.json",
            f"--hostname-override={NODE}", f"--node-ip={self.network.node}",
            f"--root-dir={self.state}/kubelet", f"--cert-dir={self.state}/kubelet-keys",
        ]  # fmt: skip

    def proxy(self) -> list[str | Path]:
        return [self.program, "kube-proxy", f"--config={self.state}/kube-proxy.json"]

    def addons(self) -> list[str | Path]:
        return [
            self.program, "addons", f"--kubeconfig={self._kubeconfig('addons')}",
            f"--listen={self.network.node}:53", f"--volumes={self.state}/volumes",
            f"--node={NODE}", f"--storage-class={STORAGE_CLASS}",
        ]  # fmt: skip

    def _kubeconfig(self, name: str) -> Path:
        return self.state / f"{name}.kubeconfig"

    def _json(self, name: str, content: object) -> None:
        (self.state / name).write_text(json.dumps(content, indent=2))

    def _write_kubeconfig(self, name: str, token: str, authority: certificates.Authority) -> None:
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": NODE,
                    "cluster": {
                        "server": self.server,
                        "certificate-authority": str(authority.path),
                    },
                }
            ],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": name}}],
            "current-context": NODE,
        }
        path = self._kubeconfig(name)
        path.touch(mode=0o600)
        self._json(path.name, content)

    def _kubelet_settings(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            # The names below it are the same for every kubelet: each gets a root of its own.
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{self.state}/keys/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "readOnlyPort": 0,
            "clusterDNS": [self.network.node],
            "clusterDomain": "cluster.local",
            "resolvConf": f"{self.state}/resolv.conf",
            "maxPods": 250,
            "serializeImagePulls": False,
            "nodeLeaseDurationSeconds": 16,
            "nodeStatusUpdateFrequency": "4s",
            # A developer's disk is fuller than a server's; images come from us alone.
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
        }

    def _proxy_settings(self) -> dict[str, Any]:
        # Kernel-wide limits cannot be set from a namespace, and need not be.
        unset = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s"}
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._kubeconfig("kube-proxy"))},
            "mode": "iptables",
            "hostnameOverride": NODE,
            "clusterCIDR": str(self.network.pods),
            "bindAddress": self.network.node,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "oomScoreAdj": 0,
            "iptables": {"minSyncPeriod": "100ms"},
            "conntrack": {**unset, "tcpCloseWaitTimeout": "0s"},
        }

    def _containerd_settings(self) -> str:
        return f"""version = 2
root = "{self.state}/containerd"
state = "{self.state}/containerd-state"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{self.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  # Lowering it takes a capability that even root may lack, and runc dies of that.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.state}/cni"
"""


def starting_order(components: Components) -> Iterator[tuple[str, Callable[[], list[str | Path]]]]:
    """What waits for the API server, in the order of starting."""
    yield "kube-controller-manager", components.controller_manager
    yield "kube-scheduler", components.scheduler
    yield "kubelet", components.kubelet
    yield "kube-proxy", components.proxy
    yield "addons", components.addons
