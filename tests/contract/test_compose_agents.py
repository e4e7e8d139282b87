"""docker-compose.agents.yml, read as data: what it adds to docker-compose.yml, and that it adds
nothing else. That agents come in by it is tested in `tests/docker`.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from streamspace_common.runtime.settings import SHARED_PREFIX
from streamspace_embedded.containers import NATS_WEBSOCKET_PORT
from streamspace_embedded.settings_reference import SETTINGS

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docker-compose.agents.yml").read_text()
MORE: dict[str, Any] = yaml.safe_load(TEXT)
BASE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
INGRESS = MORE["services"]["agent-ingress"]


def environment(service: str) -> dict[str, str]:
    found: dict[str, str] = MORE["services"][service]["environment"]
    return found


def test_one_container_is_new_and_confined_as_the_others_are() -> None:
    assert set(MORE["services"]) - set(BASE["services"]) == {"agent-ingress"}
    assert BASE["x-confined"].items() <= INGRESS.items()
    assert INGRESS["image"] == BASE["services"]["vnc-proxy"]["image"]
    project = (REPOSITORY / "services/vnc-proxy/pyproject.toml").read_text()
    assert f"\n{INGRESS['entrypoint'][0]} = " in project


def test_its_port_is_the_only_one_that_is_published() -> None:
    published = {name: each["ports"] for name, each in MORE["services"].items() if "ports" in each}
    assert published == {"agent-ingress": ["${AGENTS_LISTEN:-0.0.0.0}:${AGENTS_PORT:-8443}:8443"]}


def test_every_variable_is_a_setting_of_its_service() -> None:
    for service in ("auth", "vnc-proxy", "agent-ingress"):
        cls = SETTINGS[service]
        prefix = str(cls.model_config["env_prefix"])
        for name in environment(service):
            field = name.removeprefix(prefix if name.startswith(prefix) else SHARED_PREFIX).lower()
            assert field in cls.model_fields, f"{service}: {name}"


def test_the_ingress_holds_its_certificate_and_nothing_else() -> None:
    assert INGRESS["volumes"] == ["secrets-agent-ingress:/secrets:ro"]
    assert MORE["services"]["secrets"]["volumes"] == [
        "secrets-agent-ingress:/secrets/agent-ingress"
    ]
    assert not any("CREDENTIALS" in name for name in environment("agent-ingress"))
    assert set(MORE["volumes"]) == {"secrets-agent-ingress"}
    made = (REPOSITORY / "deploy/docker/Dockerfile").read_text()
    assert " /secrets/agent-ingress " in made


def test_it_leads_to_where_nats_and_the_relay_listen() -> None:
    own = environment("agent-ingress")
    assert own["STREAMSPACE_AGENT_INGRESS_BUS_ADDRESS"] == f"nats:{NATS_WEBSOCKET_PORT}"
    default = SETTINGS["vnc-proxy"].model_fields["listen_port"].default
    assert own["STREAMSPACE_AGENT_INGRESS_RELAY_ADDRESS"] == f"vnc-proxy:{default}"
    inside = SETTINGS["agent-ingress"].model_fields["listen_port"].default
    assert INGRESS["ports"][0].endswith(f":{inside}")


def test_agents_elsewhere_and_here_are_told_what_the_relay_has_them_dial() -> None:
    auth, relay = environment("auth"), environment("vnc-proxy")
    there, here = (
        auth[f"STREAMSPACE_AUTH_{name}_TUNNEL_URL"] for name in ("ENROLMENT", "FIRST_CLUSTER")
    )
    assert there.startswith("wss://")
    assert relay["STREAMSPACE_VNC_PROXY_TUNNEL_URL"] == there
    base = BASE["services"]["auth"]["environment"]
    first = base["STREAMSPACE_AUTH_FIRST_CLUSTER"]
    assert relay["STREAMSPACE_VNC_PROXY_CLUSTER_TUNNEL_URLS"] == f'{{"{first}": "{here}"}}'
    # Without this file everybody is told what the agent here is told with it.
    assert base["STREAMSPACE_AUTH_ENROLMENT_TUNNEL_URL"] == here
    nats = "STREAMSPACE_AUTH_ENROLMENT_NATS_URLS"
    assert base[nats] == auth["STREAMSPACE_AUTH_FIRST_CLUSTER_NATS_URLS"]
    assert auth[nats] == f"{there}/bus"


def test_no_setting_of_this_machine_is_taken_over_but_those_the_file_tells_of() -> None:
    assert set(re.findall(r"\$\{(\w+)", TEXT)) == {
        "AGENTS_HOST",
        "AGENTS_LISTEN",
        "AGENTS_PORT",
        "NATS_PORT",
        "STREAM_PORT",
        "STREAMSPACE_LOG_LEVEL",
    }
    # The one without which nothing of it makes sense has no default: compose says so and stops.
    assert "${AGENTS_HOST:?" in TEXT
