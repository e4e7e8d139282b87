"""docker-compose.yml and its Dockerfile, read as data: names, versions, rights, health.

No container engine is needed. That the secrets really open the servers is tested in
`tests/integration/embedded/test_containers.py`.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.runtime.settings import SECRETS_DIR, SHARED_PREFIX
from streamspace_embedded.settings_reference import SETTINGS

REPOSITORY = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (REPOSITORY / "deploy/docker/Dockerfile").read_text()
DESKTOP = (REPOSITORY / "deploy/docker/desktop/Dockerfile").read_text()
OURS = (*SERVICES, "agent")
ONE_SHOT = ("secrets", "databases", "desktop")
_ASKS_READINESS = '{os.environ[\\"STREAMSPACE_HEALTH_PORT\\"]}/readyz'


def stages() -> dict[str, str]:
    """Stage name -> its text, with the continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    parts = re.split(r"^(?=FROM )", text, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0].split()[-1]: part for part in parts}


def ancestry(stage: str) -> Iterator[str]:
    """The texts of a stage and of those it is built from."""
    found = stages()
    while stage in found:
        yield found[stage]
        stage = found[stage].split()[1]


def variables_of(service: str) -> dict[str, str]:
    """What a container's environment holds: the image's variables, then the compose file's."""
    container = CONTAINERS[service]
    found: dict[str, str] = {}
    for text in reversed(list(ancestry(container["build"]["target"]))):
        for line in re.findall(r"^ENV (.*)$", text, flags=re.MULTILINE):
            found |= dict(pair.split("=", 1) for pair in line.split())
    return found | {name: str(value) for name, value in container["environment"].items()}


def plain(value: str) -> str:
    """A value as compose would fill it in on a machine that sets nothing."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_every_service_of_ours_and_both_servers_are_there() -> None:
    assert set(CONTAINERS) == {*OURS, *ONE_SHOT, "nats", "postgres"}
    assert set(OURS) | {"web"} == {
        folder.name for folder in (REPOSITORY / "services").iterdir() if folder.is_dir()
    }


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting_of_its_service(service: str) -> None:
    cls = SETTINGS[service]
    prefix = str(cls.model_config["env_prefix"])
    for name in variables_of(service):
        if not name.startswith(SHARED_PREFIX) or name == SECRETS_DIR:
            continue
        field = name.removeprefix(prefix if name.startswith(prefix) else SHARED_PREFIX).lower()
        assert field in cls.model_fields, f"{service}: {name}"


@pytest.mark.parametrize("service", OURS)
def test_it_builds_an_image_of_its_own(service: str) -> None:
    build = CONTAINERS[service]["build"]
    assert build["args"] == {"SERVICE": service}
    assert build["target"] in stages()
    project = (REPOSITORY / "services" / service / "pyproject.toml").read_text()
    assert f"\nstreamspace-{service} = " in project  # the command that `service` links to


def test_images_are_pinned_by_version() -> None:
    given = re.findall(r"^ARG \w+=(\S+)$", DOCKERFILE + DESKTOP, flags=re.MULTILINE)
    used = [container["image"] for container in CONTAINERS.values()] + given
    assert len(given) == 3
    for image in used:
        assert re.search(r":\d+\.\d+\.?\d*(-[a-z-]+)?$", image), image
    for stage in stages().values():
        source = stage.split()[1]
        assert source in {"${PYTHON}", "${NODE}", *stages()}, source


def test_no_secret_stands_in_the_files() -> None:
    for name, container in CONTAINERS.items():
        for variable, value in container.get("environment", {}).items():
            secret = re.search(r"PASSWORD|SECRET|KEY|TOKEN|SEED|URL$|CREDENTIALS", variable)
            if secret and "://" not in str(value):
                empty_or_path = plain(str(value)) == "" or str(value).startswith("/secrets/")
                assert empty_or_path, f"{name}: {variable}"
            assert not re.search(r"://[^/]*@", str(value)), f"{name}: {variable}"
    assert "--mount=type=secret" not in DOCKERFILE
    assert not re.search(r"(?i)(password|token|secret)=\S", DOCKERFILE)


def test_each_holder_has_a_volume_of_its_own_for_its_secrets() -> None:
    holders: dict[str, list[str]] = {}
    for name, container in CONTAINERS.items():
        for mount in container.get("volumes", []):
            volume = mount.split(":")[0]
            if volume.startswith("secrets-") or volume == "installation":
                holders.setdefault(volume, []).append(name)
                writes = name == "secrets"
                assert writes or mount.endswith(":ro"), f"{name}: {mount}"
    assert holders.pop("installation") == ["secrets", "databases"]
    for volume, names in holders.items():
        assert names == ["secrets", volume.removeprefix("secrets-")]


def test_all_volumes_are_declared_and_used() -> None:
    used = {
        mount.split(":")[0]
        for container in CONTAINERS.values()
        for mount in container.get("volumes", [])
        if not plain(mount).startswith(("/", "./"))
    }
    assert used == set(COMPOSE["volumes"])


def test_only_the_agent_holds_the_engines_socket() -> None:
    holders = [
        name
        for name, container in CONTAINERS.items()
        for mount in container.get("volumes", [])
        if "docker.sock" in mount
    ]
    assert holders == ["agent"]
    assert CONTAINERS["agent"]["network_mode"] == "host"
    assert [name for name, each in CONTAINERS.items() if each.get("network_mode") == "host"] == [
        "agent"
    ]


def test_the_image_of_the_secrets_prepares_each_folder_it_writes_to() -> None:
    made = stages()["installation"]
    for mount in CONTAINERS["secrets"]["volumes"]:
        assert re.search(rf" {mount.split(':')[1]}(\s|$)", made), mount


def test_whoever_waits_waits_for_health_or_a_clean_end() -> None:
    for name, container in CONTAINERS.items():
        for other, how in container.get("depends_on", {}).items():
            ends = other in ONE_SHOT
            wanted = "service_completed_successfully" if ends else "service_healthy"
            assert how == {"condition": wanted}, f"{name} waits for {other}"
            assert ends or has_healthcheck(other), other
    assert all(
        "depends_on" in CONTAINERS[name]
        for name in CONTAINERS
        if name not in {"secrets", "desktop"}
    )


def has_healthcheck(name: str) -> bool:
    container = CONTAINERS[name]
    if "healthcheck" in container:
        return True
    checks = [
        line
        for text in ancestry(container.get("build", {}).get("target", ""))
        for line in re.findall(r"^HEALTHCHECK (.*)$", text, flags=re.MULTILINE)
    ]
    port = plain(variables_of(name)["STREAMSPACE_HEALTH_PORT"])
    return port.isdigit() and bool(checks) and _ASKS_READINESS in checks[0]


def test_nats_ends_and_is_started_again_when_it_cannot_store_any_more() -> None:
    """What the command answers when: `tests/integration/embedded/test_nats_probe.py`."""
    nats = CONTAINERS["nats"]
    kind, check = nats["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    (script,) = (each.split(":") for each in nats["volumes"] if "stores.sh" in each)
    assert (REPOSITORY / script[0]).is_file()
    data = next(each.split(":")[1] for each in nats["volumes"] if each.startswith("nats-data:"))
    first, last = check.replace("$$", "$").strip().splitlines()
    assert first == f"sh {script[1]} {data} 8222 || [ $? -ne 2 ] || kill -TERM 1"
    assert "/healthz" in last
    assert nats["restart"] == "unless-stopped"


def test_what_is_published_is_reached_from_this_machine_alone() -> None:
    published = {name: each["ports"] for name, each in CONTAINERS.items() if "ports" in each}
    assert set(published) == {"gateway", "vnc-proxy", "nats"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_are_confined(name: str) -> None:
    container = CONTAINERS[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert name == "postgres" or "cap_add" not in container
    assert "privileged" not in container


@pytest.mark.parametrize("stage", ["service", "gateway", "catalog-sync", "agent", "installation"])
def test_final_images_run_as_an_ordinary_user_without_build_tools(stage: str) -> None:
    texts = list(ancestry(stage))
    users = [
        user for text in reversed(texts) for user in re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    ]
    assert users[-1] == "10001:10001"
    assert any("pip uninstall" in text for text in texts)
    assert not any(re.search(r"gcc|build-essential|pip install|npm ", text) for text in texts)


def test_only_the_gateway_holds_the_web_app() -> None:
    assert [name for name, text in stages().items() if "--from=web" in text] == ["gateway"]


def test_the_image_of_sessions_runs_as_an_ordinary_user() -> None:
    assert re.findall(r"^USER (\S+)$", DESKTOP, re.MULTILINE) == ["1000:1000"]


def test_what_the_dockerfiles_copy_exists() -> None:
    for text in (*stages().values(), DESKTOP):
        for line in re.findall(r"^COPY (.*)$", text, flags=re.MULTILINE):
            if not line.startswith("--from"):
                for source in line.split()[:-1]:
                    name = source.replace("${SERVICE}", "auth")
                    assert (REPOSITORY / name).exists(), source


def test_no_setting_of_this_machine_is_taken_over_but_those_the_file_tells_of() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text()
    told = set(re.findall(r"\$\{(\w+)", text))
    assert told == {
        "AGENT_PORT",
        "DOCKER_GROUP",
        "DOCKER_SOCKET",
        "NATS_PORT",
        "PORT",
        "STREAM_PORT",
        "STREAMSPACE_ADMIN_PASSWORD",
        "STREAMSPACE_LOG_LEVEL",
    }


def test_a_service_image_without_a_service_is_refused():
    """In the shell that a build runs it with; what would build it fails at this very line."""
    (line,) = re.findall(r"^RUN (ln -s .*SERVICE.*)$", DOCKERFILE, re.MULTILINE)
    refused = subprocess.run(
        ["/bin/sh", "-c", line], check=False, capture_output=True, text=True, env={}
    )
    assert refused.returncode != 0
    assert "give --build-arg SERVICE=NAME" in refused.stderr
