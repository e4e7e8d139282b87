"""deploy/k8s renders, fits together, and keeps the house rules, object by object.

What no rendering can show, a test cluster does: tests/kubernetes/test_deploy.py.
"""

import functools
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.kubectl import kubectl, run

from streamspace_common.bus.credentials import Trust, server_config
from streamspace_common.bus.link import PING_INTERVAL
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.contracts.streams import STREAMS
from streamspace_common.runtime.settings import SECRETS_DIR, SHARED_PREFIX, load
from streamspace_embedded import kubernetes
from streamspace_embedded.settings_reference import SETTINGS

REPOSITORY = Path(__file__).parents[2]
ROOT = REPOSITORY / "deploy/k8s"
_HTTPS = 443

OVERLAYS = ("dev", "prod/control-plane", "prod/agent")
APPLIED = sorted(
    str(path.parent.relative_to(ROOT))
    for path in ROOT.rglob("kustomization.yaml")
    if "kind: Kustomization" in path.read_text()
)
CONTROL_PLANES = ("dev", "prod/control-plane")
NAMESPACES = {"streamspace", "streamspace-agent", "streamspace-sessions"}
MADE_BY_HAND = {
    # docs/how-to/install-on-kubernetes.md says how.
    ("streamspace-agent", "agent-enrolment"): {"enrolment.json"},
    ("streamspace", "streamspace-tls"): {"tls.crt", "tls.key"},
    ("streamspace", "streams-tls"): {"tls.crt", "tls.key"},
    ("streamspace", "apps-tls"): {"tls.crt", "tls.key"},
}
FIELDS = {"status.podIP": "10.1.2.3", "metadata.name": "agent-6b54d7f9c8-x2x7k"}
ROOT_KINDS = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}

Object = dict[str, Any]

pytestmark = [
    pytest.mark.skipif(kubectl() is None, reason="kubectl is not installed"),
    pytest.mark.xdist_group("kustomize"),
]


@functools.cache
def rendered(folder: str) -> tuple[Object, ...]:
    text = run("kustomize", str(ROOT / folder))
    return tuple(each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each)


@functools.cache
def secrets(overlay: str) -> dict[tuple[str, str], set[str]]:
    """What the secrets command makes for such an installation, and what people make."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = kubernetes.manifests(
            Path(folder),
            namespace="streamspace",
            postgres=kubernetes.Postgres("db.example.org:5432", outside=overlay != "dev"),
            names=kubernetes.nats_names("streamspace"),
            now=datetime.now(UTC),
        )
    found = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): set(each["data"])
        for each in made["items"]
    }
    return found | MADE_BY_HAND


def objects(overlay: str, *kinds: str) -> list[Object]:
    return [each for each in rendered(f"overlays/{overlay}") if not kinds or each["kind"] in kinds]


def name_of(each: Object) -> str:
    metadata = each["metadata"]
    return f"{each['kind']}/{metadata.get('namespace', '')}/{metadata['name']}"


def workloads(overlay: str) -> Iterator[tuple[Object, Object]]:
    """Each object that makes pods, with their template."""
    for each in objects(overlay, "Deployment", "StatefulSet", "Job", "DaemonSet", "CronJob"):
        assert each["kind"] not in {"DaemonSet", "CronJob"}, "not known to these tests"
        yield each, each["spec"]["template"]


def containers(template: Object) -> list[Object]:
    spec = template["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


@pytest.mark.parametrize("folder", sorted(ROOT.rglob("kustomization.yaml")), ids=str)
def test_every_kustomization_names_what_exists_and_leaves_out_nothing(folder: Path) -> None:
    told = yaml.safe_load(folder.read_text())
    named = {
        *told.get("resources", ()),
        *told.get("components", ()),
        *(patch["path"] for patch in told.get("patches", ()) if "path" in patch),
        *(
            file.partition("=")[2] or file
            for generator in told.get("configMapGenerator", ())
            for file in (*generator.get("files", ()), *generator.get("envs", ()))
        ),
    }
    for name in named:
        assert (folder.parent / name).exists(), name
    beside = {path.name for path in folder.parent.iterdir() if path.is_file()}
    assert beside - {folder.name, "README.md"} <= named, "lies there and is used by nobody"


def test_what_an_agents_overlay_leaves_to_be_filled_in_is_right(tmp_path: Path) -> None:
    text = (ROOT / "overlays/prod/agent/kustomization.yaml").read_text()
    _, _, optional = text.partition("fetched from:\n")
    filled = text.replace(optional, re.sub(r"^# ?", "", optional, flags=re.MULTILINE))
    above = os.path.relpath(ROOT, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(filled.replace("../../..", above))
    made = [each for each in yaml.safe_load_all(run("kustomize", str(tmp_path))) if each]
    (settings,) = (each["data"] for each in made if each["kind"] == "ConfigMap")
    mirrors = json.loads(settings["STREAMSPACE_AGENT_IMAGE_MIRRORS"])
    assert mirrors == {"streamspace/": "registry.example.org/streamspace/"}
    (agent,) = (each for each in made if each["kind"] == "Deployment")
    (container,) = agent["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith(mirrors["streamspace/"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_object_is_there_twice_and_each_has_its_namespace(overlay: str) -> None:
    seen: set[str] = set()
    for each in objects(overlay):
        assert name_of(each) not in seen
        seen.add(name_of(each))
        if each["kind"] in ROOT_KINDS:
            assert "namespace" not in each["metadata"], name_of(each)
        else:
            assert each["metadata"]["namespace"] in NAMESPACES, name_of(each)


@pytest.mark.parametrize("folder", APPLIED, ids=str)
def test_nothing_lands_in_the_namespace_one_happens_to_be_in(folder: str) -> None:
    """A `default-deny` in somebody's `default` would be the least of surprises there."""
    for each in rendered(folder):
        if each["kind"] not in ROOT_KINDS:
            assert each["metadata"].get("namespace") in NAMESPACES, name_of(each)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_say_what_they_belong_to(overlay: str) -> None:
    for each in objects(overlay):
        labels = each["metadata"].get("labels", {})
        if each["kind"] != "CustomResourceDefinition":
            assert labels.get("app.kubernetes.io/part-of") == "streamspace", name_of(each)
    for each, template in workloads(overlay):
        for labels in (each["metadata"]["labels"], template["metadata"]["labels"]):
            for label in ("name", "part-of", "component"):
                assert f"app.kubernetes.io/{label}" in labels, name_of(each)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_confined(overlay: str) -> None:
    for each, template in workloads(overlay):
        pod = template["spec"]
        where = name_of(each)
        assert pod["enableServiceLinks"] is False, where
        assert pod["serviceAccountName"] != "default", where
        speaks_to_api = each["metadata"]["name"] == "agent"
        assert pod["automountServiceAccountToken"] is speaks_to_api, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), where
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, where
        assert context["runAsUser"] >= 999, where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not any("hostPath" in volume for volume in pod.get("volumes", ())), where
        for container in containers(template):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["readOnlyRootFilesystem"] is True, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert "privileged" not in own, where


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_say_what_they_need_and_what_is_too_much(overlay: str) -> None:
    for each, template in workloads(overlay):
        for container in containers(template):
            resources = container["resources"]
            for amount in ("cpu", "memory"):
                asked, most = (resources[kind][amount] for kind in ("requests", "limits"))
                assert 0 < quantity(asked) <= quantity(most), name_of(each)
        for volume in template["spec"].get("volumes", ()):
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], f"{name_of(each)}: {volume['name']}"


def quantity(text: str) -> float:
    units = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    assert match is not None, text
    return float(match[1]) * units[match[2]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_pinned_and_the_same_as_in_compose(overlay: str) -> None:
    composed = {
        container["image"]
        for container in yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())[
            "services"
        ].values()
    }
    for each, template in workloads(overlay):
        for container in containers(template):
            image = container["image"]
            assert re.search(r":\d+\.\d+\.?\d*(-[a-z-]+)?$", image), image
            assert container["imagePullPolicy"] == "IfNotPresent", name_of(each)
            assert image in composed or image.partition(":")[0] == "streamspace/agent", image


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_runs_for_ever_is_probed_on_ports_it_has(overlay: str) -> None:
    for each, template in workloads(overlay):
        if each["kind"] == "Job":
            continue
        for container in containers(template):
            ports = {port["name"] for port in container["ports"]}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = container[kind]
                if "httpGet" in probe:
                    assert probe["httpGet"]["port"] in ports, f"{name_of(each)}: {kind}"
                else:
                    assert "exec" in probe, "a TCP probe knows nothing of what answers"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_updates_lose_nothing(overlay: str) -> None:
    """The end is longer than the notice and the drain; a new one is ready before an old one goes."""
    for each, template in workloads(overlay):
        if each["kind"] != "Deployment":
            continue
        told = variables(overlay, each)
        drain = float(told["STREAMSPACE_DRAIN_TIMEOUT"])
        notice = sum(
            float(container["lifecycle"]["preStop"]["exec"]["command"][-1])
            for container in containers(template)
            if "lifecycle" in container
        )
        assert template["spec"]["terminationGracePeriodSeconds"] >= drain + notice + 10
        assert each["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        if any(port["name"] in {"http", "streams"} for port in containers(template)[0]["ports"]):
            own = float(told.get("STREAMSPACE_VNC_PROXY_DRAIN_NOTICE", 0))
            assert notice + own >= 5, f"{name_of(each)}: load balancers need notice"
            assert own < drain


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_spread_over_nodes_and_may_be_evicted_one_at_a_time(overlay: str) -> None:
    budgets = objects(overlay, "PodDisruptionBudget")
    for each, template in workloads(overlay):
        labels = template["metadata"]["labels"]
        if each["kind"] == "Deployment":
            spread = template["spec"]["topologySpreadConstraints"]
            assert {one["topologyKey"] for one in spread} == {
                "kubernetes.io/hostname",
                "topology.kubernetes.io/zone",
            }
            for one in spread:
                assert selects(one["labelSelector"], labels)
        many = each["kind"] == "Deployment" or each["spec"].get("replicas", 1) > 1
        mine = [
            budget
            for budget in budgets
            if selects(budget["spec"]["selector"], labels)
            and budget["metadata"]["namespace"] == each["metadata"]["namespace"]
        ]
        assert len(mine) == (1 if many else 0), name_of(each)
        assert all(budget["spec"]["maxUnavailable"] == 1 for budget in mine)


def selects(selector: Object, labels: Object) -> bool:
    assert "matchExpressions" not in selector, "not known to these tests"
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_select_their_own_pods_and_no_others(overlay: str) -> None:
    pods = {name_of(each): (each, template) for each, template in workloads(overlay)}
    for owner, (each, _) in pods.items():
        if each["kind"] == "Job":
            continue
        found = {
            other
            for other, (it, template) in pods.items()
            if selects(each["spec"]["selector"], template["metadata"]["labels"])
            and it["metadata"]["namespace"] == each["metadata"]["namespace"]
        }
        assert found == {owner}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_lead_to_ports_of_pods(overlay: str) -> None:
    for service in objects(overlay, "Service"):
        behind = [
            template
            for each, template in workloads(overlay)
            if each["metadata"]["namespace"] == service["metadata"]["namespace"]
            and selects(
                {"matchLabels": service["spec"]["selector"]}, template["metadata"]["labels"]
            )
        ]
        assert len(behind) == 1, name_of(service)
        ports = {
            port["name"]: port["containerPort"]
            for container in containers(behind[0])
            for port in container["ports"]
        }
        for port in service["spec"]["ports"]:
            number = ports[port["targetPort"]]
            # To the world, what speaks TLS is where proxies let people out to.
            outside = service["spec"].get("type") == "LoadBalancer"
            assert number == port["port"] or (outside and port["port"] == _HTTPS), name_of(service)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_are_those_that_the_settings_say(overlay: str) -> None:
    for each, template in workloads(overlay):
        service = service_of(each)
        if service is None:
            continue
        told = variables(overlay, each)
        ports = {port["name"]: port["containerPort"] for port in containers(template)[0]["ports"]}
        assert ports["health"] == int(told["STREAMSPACE_HEALTH_PORT"])
        prefix = str(SETTINGS[service].model_config["env_prefix"])
        for name in ("http", "streams"):
            if name in ports:
                assert ports[name] == int(told[f"{prefix}LISTEN_PORT"])
        assert set(ports) <= {"health", "http", "streams"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_autoscaling_is_off_by_default(overlay: str) -> None:
    assert not objects(overlay, "HorizontalPodAutoscaler")


def test_autoscaling_is_there_to_be_switched_on(tmp_path: Path) -> None:
    scaled = rendered_with("autoscaling", tmp_path)
    targets = [each for each in scaled if each["kind"] == "HorizontalPodAutoscaler"]
    deployments = {
        each["metadata"]["name"]: each for each in scaled if each["kind"] == "Deployment"
    }
    assert {each["spec"]["scaleTargetRef"]["name"] for each in targets} == set(deployments)
    for each in targets:
        assert each["spec"]["minReplicas"] >= 2
        # Two that decide on the number undo each other's work.
        assert "replicas" not in deployments[each["metadata"]["name"]]["spec"]


def rendered_with(component: str, folder: Path) -> list[Object]:
    """The control plane of `prod` with a component more, as an installation would add it."""
    import os

    above = os.path.relpath(ROOT, folder)
    (folder / "kustomization.yaml").write_text(
        "kind: Kustomization\n"
        f"resources: [{above}/overlays/prod/control-plane]\n"
        f"components: [{above}/components/{component}]\n"
    )
    return list(yaml.load_all(run("kustomize", str(folder)), Loader=yaml.CSafeLoader))


# ---- Settings and secrets --------------------------------------------------------------------------------


def service_of(each: Object) -> str | None:
    """Which of our services a workload runs, if one."""
    name = str(each["metadata"]["name"])
    return name if name in SETTINGS else None


def config_maps(overlay: str) -> dict[tuple[str, str], Object]:
    return {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["data"]
        for each in objects(overlay, "ConfigMap")
    }


def variables(overlay: str, each: Object) -> dict[str, str]:
    """A workload's environment, as its first container gets it."""
    found: dict[str, str] = {}
    container = containers(each["spec"]["template"])[0]
    for source in container.get("envFrom", ()):
        assert set(source) == {"configMapRef"}, "secrets are files, never an environment"
        found |= config_maps(overlay)[each["metadata"]["namespace"], source["configMapRef"]["name"]]
    for one in container.get("env", ()):
        assert "secretKeyRef" not in one.get("valueFrom", {}), "secrets are files"
        found[one["name"]] = one.get("value") or FIELDS[one["valueFrom"]["fieldRef"]["fieldPath"]]
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting_of_its_service(overlay: str) -> None:
    checked = set()
    for each, _ in workloads(overlay):
        service = service_of(each)
        if service is None:
            continue
        checked.add(service)
        cls = SETTINGS[service]
        prefix = str(cls.model_config["env_prefix"])
        every = {name for other in SETTINGS.values() for name in other.model_fields}
        for name in variables(overlay, each):
            if not name.startswith(SHARED_PREFIX):
                assert name == "POD_IP", name
            elif name == SECRETS_DIR:
                continue
            elif name.startswith(prefix):
                assert name.removeprefix(prefix).lower() in cls.model_fields, f"{service}: {name}"
            else:
                # Told to all, for those who have it.
                assert name.removeprefix(SHARED_PREFIX).lower() in every, f"{service}: {name}"
    assert checked == (
        {"agent"}
        if overlay == "prod/agent"
        else {*SERVICES} | ({"agent"} if overlay == "dev" else set())
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_take_their_settings(
    overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded as in a pod: the environment, and the files of the Secret."""
    made = kubernetes.manifests(
        tmp_path / "installation",
        namespace="streamspace",
        postgres=kubernetes.Postgres("db.example.org:5432", outside=overlay != "dev"),
        names=kubernetes.nats_names("streamspace"),
        now=datetime.now(UTC),
    )
    contents = {each["metadata"]["name"]: each["data"] for each in made["items"]}
    for each, template in workloads(overlay):
        service = service_of(each)
        if service is None:
            continue
        with monkeypatch.context() as patch:
            folder = tmp_path / service
            folder.mkdir()
            for volume in template["spec"]["volumes"]:
                for name, data in contents.get(
                    volume.get("secret", {}).get("secretName"), {}
                ).items():
                    import base64

                    (folder / name).write_bytes(base64.b64decode(data))
            for name, value in variables(overlay, each).items():
                filled = value.replace("$(POD_IP)", "10.1.2.3")
                patch.setenv(name, filled.replace("/secrets", str(folder)))
            settings = load(SETTINGS[service])
            if service != "agent":
                for file in ("nats_credentials", "nats_ca_file"):
                    assert getattr(settings, file).is_file(), f"{service}: {file}"
                assert settings.nats_url.startswith("tls://")
            assert settings.health_host == "0.0.0.0"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_and_config_maps_that_are_named_exist(overlay: str) -> None:
    maps, known = config_maps(overlay), secrets(overlay)
    used: set[tuple[str, str]] = set()
    for each, template in workloads(overlay):
        namespace = each["metadata"]["namespace"]
        for kind, name in references(template):
            here = (namespace, name)
            assert here in (maps if kind == "configMap" else known), f"{name_of(each)}: {name}"
            used.add(here)
    for ingress in objects(overlay, "Ingress"):
        for tls in ingress["spec"]["tls"]:
            used.add((ingress["metadata"]["namespace"], tls["secretName"]))
    assert used >= set(maps), "a ConfigMap nobody reads"
    if overlay != "prod/agent":
        assert used >= set(known) - set(MADE_BY_HAND), "a Secret nobody reads"
    assert not objects(overlay, "Secret"), "no secret stands in git"


def references(template: Object) -> Iterator[tuple[str, str]]:
    for container in containers(template):
        for source in container.get("envFrom", ()):
            yield "configMap", source["configMapRef"]["name"]
    for volume in template["spec"].get("volumes", ()):
        sources = [volume, *volume.get("projected", {}).get("sources", ())]
        for source in sources:
            if "secret" in source:
                yield "secret", source["secret"].get("secretName") or source["secret"]["name"]
            if "configMap" in source:
                yield "configMap", source["configMap"]["name"]


@pytest.mark.parametrize("overlay", CONTROL_PLANES)
def test_files_that_settings_name_are_in_the_secret(overlay: str) -> None:
    for each, template in workloads(overlay):
        if service_of(each) in SERVICES:
            (holder,) = (name for kind, name in references(template) if kind == "secret")
            files = secrets(overlay)["streamspace", holder]
            for value in variables(overlay, each).values():
                if value.startswith("/secrets/"):
                    assert value.removeprefix("/secrets/") in files, value


def test_mounts_are_of_volumes_and_secrets_are_only_read() -> None:
    for overlay in OVERLAYS:
        for each, template in workloads(overlay):
            pod = template["spec"]
            volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
            volumes |= {
                claim["metadata"]["name"]: claim
                for claim in each["spec"].get("volumeClaimTemplates", ())
            }
            mounted = set()
            for container in containers(template):
                for mount in container["volumeMounts"]:
                    volume = volumes[mount["name"]]
                    mounted.add(mount["name"])
                    if "secret" in volume or "projected" in volume:
                        assert mount["readOnly"] is True, name_of(each)
            assert mounted == set(volumes), name_of(each)


def test_the_image_prepares_nothing_that_a_pod_mounts_over() -> None:
    """The image's own variables and the pods' agree."""
    dockerfile = (REPOSITORY / "deploy/docker/Dockerfile").read_text()
    for name in ("HEALTH_PORT=9000", "HEALTH_HOST=0.0.0.0", "SECRETS_DIR=/secrets"):
        assert f"STREAMSPACE_{name}" in dockerfile
        assert f"STREAMSPACE_{name}" in (ROOT / "base/settings.env").read_text()
    assert "USER 10001:10001" in dockerfile


# ---- Network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_namespace_denies_by_default(overlay: str) -> None:
    made = {each["metadata"]["name"] for each in objects(overlay, "Namespace")}
    assert made == {
        each["metadata"]["namespace"]
        for each in objects(overlay, "NetworkPolicy")
        if each["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }
    for each in objects(overlay, "Namespace"):
        assert each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] in {
            "restricted",
            "baseline",
        }


def reaches(overlay: str, source: str, target: str, port: int) -> bool:
    """Whether policies let pods of one workload open connections to another's port."""
    pods = {each["metadata"]["name"]: (each, template) for each, template in workloads(overlay)}
    one, other = pods[source], pods[target]

    def allowed(kind: str, subject: Any, partner: Any) -> bool:
        for policy in objects(overlay, "NetworkPolicy"):
            spec = policy["spec"]
            labels = subject[1]["metadata"]["labels"]
            if policy["metadata"]["namespace"] != subject[0]["metadata"]["namespace"]:
                continue
            if not selects(spec["podSelector"], labels):
                continue
            for rule in spec.get(kind, ()):
                ports = rule.get("ports")
                if ports is not None and port not in {each["port"] for each in ports}:
                    continue
                sides = rule.get("from" if kind == "ingress" else "to")
                if any(is_one(side, policy, partner) for side in sides):
                    return True
        return False

    def is_one(side: Object, policy: Object, partner: Any) -> bool:
        if "ipBlock" in side:
            return "except" not in side["ipBlock"]
        home = partner[0]["metadata"]["namespace"]
        if "namespaceSelector" in side:
            if not selects(side["namespaceSelector"], {"kubernetes.io/metadata.name": home}):
                return False
        elif home != policy["metadata"]["namespace"]:
            return False
        return selects(side.get("podSelector", {}), partner[1]["metadata"]["labels"])

    return allowed("egress", one, other) and allowed("ingress", other, one)


def test_who_reaches_whom() -> None:
    """The whole matrix, so that a policy that lets in more than it should fails here."""
    ports = {"nats": (4222, 6222, 8222), "postgres": (5432,), "gateway": (8080, 9000)}
    ports |= {"vnc-proxy": (8081, 9000), "auth": (9000,), "session": (9000,), "agent": (9000,)}
    sources = [*SERVICES, "agent", "databases", "nats", "postgres"]
    found = {
        (source, target, port)
        for source in sources
        for target, some in ports.items()
        for port in some
        if reaches("dev", source, target, port)
    }
    owning = ("auth", "session", "catalog-sync", "databases")
    assert found == {
        *((service, "nats", 4222) for service in (*SERVICES, "agent")),
        ("nats", "nats", 6222),
        *((service, "postgres", 5432) for service in owning),
        ("agent", "vnc-proxy", 8081),
        ("vnc-proxy", "vnc-proxy", 8081),
    }


def test_sessions_reach_no_private_network() -> None:
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in objects("dev", "NetworkPolicy")
        if each["metadata"]["namespace"] == "streamspace-sessions"
    }
    outwards = [
        side
        for spec in policies.values()
        for rule in spec.get("egress", ())
        for side in rule["to"]
        if "ipBlock" in side
    ]
    assert outwards
    for side in outwards:
        assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(
            side["ipBlock"]["except"]
        )


# ---- Rights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rights_name_what_they_are_for(overlay: str) -> None:
    for role in objects(overlay, "Role", "ClusterRole"):
        for rule in role["rules"]:
            for field in ("apiGroups", "resources", "verbs"):
                assert "*" not in rule[field], name_of(role)
            assert "secrets" not in rule["resources"], name_of(role)
    bindings = objects(overlay, "RoleBinding", "ClusterRoleBinding")
    accounts = {
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for each in objects(overlay, "ServiceAccount")
    }
    roles = {
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in objects(overlay, "Role", "ClusterRole")
    }
    for binding in bindings:
        for subject in binding["subjects"]:
            assert (subject["namespace"], subject["name"]) in accounts, name_of(binding)
            assert subject["name"] == "agent", "nobody else speaks with the API server"
        kind = binding["roleRef"]["kind"]
        where = binding["metadata"].get("namespace") if kind == "Role" else None
        assert (kind, where, binding["roleRef"]["name"]) in roles, name_of(binding)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_accounts_are_each_workloads_own_and_mount_no_token(overlay: str) -> None:
    accounts = objects(overlay, "ServiceAccount")
    assert all(each["automountServiceAccountToken"] is False for each in accounts)
    used = {
        (each["metadata"]["namespace"], template["spec"]["serviceAccountName"])
        for each, template in workloads(overlay)
    }
    assert used == {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in accounts}


# ---- Ways in ---------------------------------------------------------------------------------------------


def test_dev_needs_no_ingress_and_no_load_balancer() -> None:
    assert not objects("dev", "Ingress")
    assert all(each["spec"].get("type") is None for each in objects("dev", "Service"))


def test_each_way_in_leads_to_a_service_by_tls() -> None:
    services = {each["metadata"]["name"]: each for each in objects("prod/control-plane", "Service")}
    ingresses = {
        each["metadata"]["name"]: each for each in objects("prod/control-plane", "Ingress")
    }
    assert set(ingresses) == {"gateway", "relay", "apps"}
    for ingress in ingresses.values():
        (rule,), (tls,) = ingress["spec"]["rules"], ingress["spec"]["tls"]
        assert tls["hosts"] == [rule["host"]]
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            ports = {port["name"] for port in services[backend["name"]]["spec"]["ports"]}
            assert backend["port"]["name"] in ports
        seconds = ingress["metadata"]["annotations"][
            "nginx.ingress.kubernetes.io/proxy-read-timeout"
        ]
        assert int(seconds) >= 3600, "streams and events last for hours"


def test_hosts_are_those_that_the_services_are_told() -> None:
    by_name = {each["metadata"]["name"]: each for each, _ in workloads("prod/control-plane")}
    told = {name: variables("prod/control-plane", by_name[name]) for name in SERVICES}
    hosts = {
        each["metadata"]["name"]: each["spec"]["rules"][0]["host"]
        for each in objects("prod/control-plane", "Ingress")
    }
    relay = f"wss://{hosts['relay']}"
    assert told["gateway"]["STREAMSPACE_GATEWAY_STREAM_URL"] == relay
    assert told["vnc-proxy"]["STREAMSPACE_VNC_PROXY_TUNNEL_URL"] == relay
    assert told["auth"]["STREAMSPACE_AUTH_ENROLMENT_TUNNEL_URL"] == relay
    assert told["vnc-proxy"]["STREAMSPACE_APPS_DOMAIN"] == hosts["apps"].removeprefix("*.")
    origin = f"https://{hosts['gateway']}"
    assert told["vnc-proxy"]["STREAMSPACE_VNC_PROXY_ALLOWED_ORIGINS"] == origin
    assert told["gateway"]["STREAMSPACE_GATEWAY_SECURE_COOKIES"] == "true"
    assert told["vnc-proxy"]["STREAMSPACE_VNC_PROXY_APPS_SCHEME"] == "https"


# ---- The bus ---------------------------------------------------------------------------------------------


def test_streams_have_as_many_copies_as_there_are_servers() -> None:
    for overlay, servers in (("dev", 1), ("prod/control-plane", 3)):
        by_name = {each["metadata"]["name"]: each for each, _ in workloads(overlay)}
        assert by_name["nats"]["spec"]["replicas"] == servers
        told = variables(overlay, by_name["session"])
        assert int(told["STREAMSPACE_SESSION_NATS_REPLICAS"]) == servers


def test_every_server_of_a_cluster_is_routed_to_and_stands_alone_on_its_node() -> None:
    (nats,) = (each for each in objects("prod/control-plane", "StatefulSet"))
    conf = nats_config("prod/control-plane")
    for number in range(nats["spec"]["replicas"]):
        assert f"nats-{number}.{nats['spec']['serviceName']}.streamspace.svc:6222" in conf
    (apart,) = nats["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert apart["topologyKey"] == "kubernetes.io/hostname"


def test_the_bus_has_room_for_all_streams() -> None:
    (claim,) = next(each for each in objects("prod/control-plane", "StatefulSet"))["spec"][
        "volumeClaimTemplates"
    ]
    needed = sum(stream.max_bytes for stream in STREAMS)
    assert quantity(claim["spec"]["resources"]["requests"]["storage"]) > needed
    assert needed < 40e9
    for overlay in CONTROL_PLANES:
        assert "max_file: 40GB" in nats_config(overlay)


@pytest.mark.parametrize("overlay", CONTROL_PLANES)
def test_nats_is_started_again_when_it_cannot_store_any_more(overlay: str) -> None:
    """What the command answers when: `tests/integration/embedded/test_nats_probe.py`."""
    (nats,) = (
        each for each in objects(overlay, "StatefulSet") if each["metadata"]["name"] == "nats"
    )
    pod = nats["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    shell, script, store, port = container["livenessProbe"]["exec"]["command"]
    (mount,) = (each for each in container["volumeMounts"] if script.startswith(each["mountPath"]))
    (volume,) = (each for each in pod["volumes"] if each["name"] == mount["name"])
    (config,) = (
        data
        for (_, name), data in config_maps(overlay).items()
        if name == volume["configMap"]["name"]
    )
    assert config[Path(script).name] == (ROOT / "nats/base/stores.sh").read_text()
    assert shell == "sh"
    assert f'store_dir: "{store}"' in nats_config(overlay)
    assert f'http: "0.0.0.0:{port}"' in nats_config(overlay)
    # It is not asked before all streams are there.
    assert container["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_both_ends_of_a_bus_connection_give_it_up_in_time() -> None:
    """Three unanswered questions, so that all is well again within half a minute."""
    own = server_config(Trust.new(), port=1, store_dir=Path("/data"))
    for conf in (own, *(nats_config(overlay) for overlay in CONTROL_PLANES)):
        assert 'ping_interval: "5s"' in conf
        assert "ping_max: 2" in conf
    assert PING_INTERVAL == 5


def nats_config(overlay: str) -> str:
    (config,) = (data["nats.conf"] for data in config_maps(overlay).values() if "nats.conf" in data)
    return str(config)


def test_servers_differ_only_in_being_a_cluster() -> None:
    """Apart from the first line, which says what the file is for."""
    one, three = (nats_config(overlay).partition("\n")[2] for overlay in CONTROL_PLANES)
    assert three.startswith(one)


def test_manifests_are_plain_json_for_kubectl(tmp_path: Path) -> None:
    made = kubernetes.manifests(
        tmp_path,
        namespace="other",
        postgres=kubernetes.Postgres("postgres.other.svc:5432"),
        names=kubernetes.nats_names("other"),
        now=datetime.now(UTC),
    )
    assert json.loads(json.dumps(made)) == made
    assert {each["metadata"]["namespace"] for each in made["items"]} == {"other"}
