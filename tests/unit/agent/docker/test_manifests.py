"""What the engine is told to create, compared whole."""

from typing import Any

import pytest
from tests.support.installation import make_spec

from streamspace_agent.runtimes.docker import manifests
from streamspace_agent.runtimes.docker.manifests import ContainerOptions
from streamspace_agent.runtimes.docker.views import ImageFacts
from streamspace_common.contracts.catalog import Port, ResourceAmounts, TemplateSpec, VolumeMount
from streamspace_common.contracts.sessions import SessionSpec

OPTIONS = ContainerOptions(prefix="lab")
ORDINARY = ImageFacts(user="1000:1000", environment={"HOME": "/home/desk"})
AS_ROOT = ImageFacts()


def spec_of(template: dict[str, Any] | None = None, **fields: Any) -> SessionSpec:
    spec = make_spec(image="registry.test/desk:3")
    manifest = spec.template_manifest
    changed = TemplateSpec.model_validate(
        manifest.spec.model_dump(by_alias=True) | (template or {})
    )
    return spec.model_copy(
        update={"template_manifest": manifest.model_copy(update={"spec": changed}), **fields}
    )


def container(
    template: dict[str, Any] | None = None, image: ImageFacts = ORDINARY, **fields: Any
) -> dict[str, Any]:
    return manifests.container(spec_of(template, **fields), 4, image, OPTIONS)


def environment(made: dict[str, Any]) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in made["Env"])


def test_a_container_is_made_of_this_and_nothing_else() -> None:
    assert container(
        {"env": [{"name": "TZ", "value": "Europe/Rome"}], "shmSize": "1Gi"},
        resources=ResourceAmounts(cpu="1500m", memory="3Gi"),
        env={"LANG": "it_IT.UTF-8"},
    ) == {
        "Image": "registry.test/desk:3",
        "Hostname": "ada-terminal-00000001",
        "Labels": {
            "stream.space/installation": "lab",
            "stream.space/kind": "session",
            "stream.space/session": "ada-terminal-00000001",
            "stream.space/generation": "4",
            "stream.space/owner": f"usr-{'0' * 32}",
            "stream.space/template": "starter_terminal",
            "stream.space/ports": "5900",
            "stream.space/connection": '{"protocol":"vnc","port":5900,"path":"/"}',
        },
        "Env": [
            "PUID=1000",
            "PGID=1000",
            "TZ=Europe/Rome",
            "HOME=/home/desk",
            "LANG=it_IT.UTF-8",
            "STREAMSPACE_SESSION_ID=ada-terminal-00000001",
        ],
        "ExposedPorts": {"5900/tcp": {}},
        "StopTimeout": 2,
        "HostConfig": {
            "NetworkMode": "lab-sessions",
            "NanoCpus": 1_500_000_000,
            "Memory": 3 * 2**30,
            "MemorySwap": 3 * 2**30,
            "PidsLimit": 4096,
            "ShmSize": 2**30,
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": "lab-home-ada-00000000",
                    "Target": "/home/desk",
                    "VolumeOptions": {
                        "Labels": {
                            "stream.space/installation": "lab",
                            "stream.space/kind": "home",
                            "stream.space/owner": f"usr-{'0' * 32}",
                            "stream.space/home": "ada-00000000",
                        }
                    },
                }
            ],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "4m", "max-file": "1"}},
        },
    }


def test_the_network_lets_no_session_speak_to_another() -> None:
    made = manifests.network(OPTIONS)
    assert made["Name"] == "lab-sessions"
    assert made["Options"] == {"com.docker.network.bridge.enable_icc": "false"}


def test_an_image_that_begins_as_root_keeps_what_it_needs_to_step_down() -> None:
    dropped = container(image=AS_ROOT)["HostConfig"]["CapDrop"]
    assert "ALL" not in dropped
    assert {"NET_RAW", "MKNOD"} <= set(dropped)
    assert not {"SETUID", "SETGID", "CHOWN"} & set(dropped)


def test_linuxserver_images_keep_their_sudo() -> None:
    made = container({"baseImage": "lscr.io/linuxserver/webtop:latest"}, AS_ROOT)
    assert made["HostConfig"]["SecurityOpt"] == []
    (home,) = made["HostConfig"]["Mounts"]
    assert home["Target"] == "/config"
    assert "HOME" not in environment(made)


def test_every_declared_port_is_offered_and_the_viewers_port_comes_first() -> None:
    template = {
        "ports": [
            Port(name="web", container_port=8080),
            Port(name="vnc", container_port=5900),
            Port(name="game", container_port=27015, protocol="UDP"),
        ]
    }
    made = container(template)
    assert made["Labels"]["stream.space/ports"] == "5900,8080"
    assert manifests.offered_ports(made["Labels"]) == {5900, 8080}
    connection = manifests.offered_connection(made["Labels"])
    assert (connection.protocol, connection.port) == ("vnc", 5900)


def test_a_templates_mounts_are_the_home_and_volumes_beside_it() -> None:
    mounts = [
        VolumeMount(name="user-home", mount_path="/config"),
        VolumeMount(name="My Games!", mount_path="/games"),
        VolumeMount(name="again", mount_path="/config"),
    ]
    made = container({"volumeMounts": mounts})["HostConfig"]["Mounts"]
    assert [mount["Target"] for mount in made] == ["/config", "/games"]
    assert made[0]["Source"] == "lab-home-ada-00000000"
    assert made[1]["Source"].startswith("lab-home-ada-00000000.terminal.my-games")


def test_a_temporary_home_bears_the_sessions_name_and_not_the_users() -> None:
    (mount,) = container(persistent_home=False)["HostConfig"]["Mounts"]
    assert mount["Source"] == "lab-ada-terminal-00000001.home"
    assert "stream.space/home" not in mount["VolumeOptions"]["Labels"]
    assert mount["VolumeOptions"]["Labels"]["stream.space/session"] == "ada-terminal-00000001"


def test_roots_own_home_is_not_taken_for_the_users() -> None:
    (mount,) = container(image=ImageFacts(environment={"HOME": "/root"}))["HostConfig"]["Mounts"]
    assert mount["Target"] == "/home/user"


def test_nothing_replaces_the_sessions_own_mark() -> None:
    made = container(env={"STREAMSPACE_SESSION_ID": "another"})
    assert environment(made)["STREAMSPACE_SESSION_ID"] == "ada-terminal-00000001"


def test_tiny_amounts_are_raised_to_what_engines_take() -> None:
    host = container(resources=ResourceAmounts(cpu="1m", memory="1Mi"))["HostConfig"]
    assert (host["NanoCpus"], host["Memory"]) == (10**7, 6 * 2**20)


def test_an_amount_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        container(resources=ResourceAmounts(cpu="much", memory="1Gi"))
