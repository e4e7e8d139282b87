"""Who is told what."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from streamspace_embedded import trust, wiring
from streamspace_embedded.ingress import Certificate, Ingress
from streamspace_embedded.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    layout.make()
    return layout


@pytest.fixture
def wired(layout):
    secrets = trust.load(layout)
    addresses = wiring.Addresses(
        host="127.0.0.1",
        port=8080,
        stream_port=8081,
        nats_port=4222,
        postgres_port=5432,
        health_ports={name: 9000 + place for place, name in enumerate(wiring.NAMES)},
    )
    outer = {
        "PATH": "/usr/bin",
        "STREAMSPACE_ADMIN_PASSWORD": "only for auth",
        "STREAMSPACE_SESSION_MAX_SESSIONS": "9",
    }
    found = wiring.processes(layout, secrets, addresses, web_root=None, outer=outer)
    return secrets, {process.name: process.environment for process in found}


def test_every_service_and_one_agent_is_wired(wired):
    assert set(wired[1]) == {
        "auth", "session", "catalog-sync", "gateway", "vnc-proxy", "agent-local"
    }  # fmt: skip


@pytest.mark.parametrize("name", wiring.NAMES)
def test_a_process_knows_no_secret_of_another_one(wired, name):
    secrets, environments = wired
    text = "\n".join(environments[name].values())
    passwords = dict(secrets.database_passwords)
    passwords.pop({"catalog-sync": "catalog"}.get(name, name), None)
    assert not any(password in text for password in passwords.values())
    assert (secrets.auth_key in text) == (name == "auth")
    assert (secrets.catalog_key in text) == (name == "catalog-sync")
    assert (secrets.cookie_key in text) == (name == "vnc-proxy")
    assert ("only for auth" in text) == (name == "auth")
    for seed in secrets.trust.model_dump().values():
        assert seed not in text


def test_a_setting_of_the_outer_environment_reaches_its_service(wired):
    assert wired[1]["session"]["STREAMSPACE_SESSION_MAX_SESSIONS"] == "9"


def test_secrets_stay_the_same_and_are_private(layout):
    assert trust.load(layout) == trust.load(layout)
    trust.write_credentials(layout, trust.load(layout), nats_port=4222)
    files = [path for path in layout.secrets.iterdir() if path.is_file()]
    assert len(files) > 5
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_an_installation_of_an_earlier_version_gets_what_it_lacks(layout):
    before = trust.load(layout)
    path = layout.secrets / "installation.json"
    kept = json.loads(path.read_text())
    del kept["cookieKey"]
    path.write_text(json.dumps(kept))
    after = trust.load(layout)
    assert (after.trust, after.auth_key) == (before.trust, before.auth_key)
    assert after.cookie_key != before.cookie_key
    assert trust.load(layout) == after
    assert path.stat().st_mode & 0o777 == 0o600


def test_ports_are_kept_unless_somebody_took_one(layout):
    import socket

    first = layout.inner_ports("nats")
    assert layout.inner_ports("nats") == first
    with socket.create_server(("127.0.0.1", first["nats"])):
        assert layout.inner_ports("nats") != first


def through_an_ingress(layout, ingress, certificate):
    addresses = wiring.Addresses(
        host="127.0.0.1",
        port=8080,
        stream_port=8081,
        nats_port=4222,
        postgres_port=5432,
        health_ports=dict.fromkeys((*wiring.NAMES, wiring.INGRESS), 9000),
        ingress=wiring.AgentsWay(ingress, certificate, 9222),
    )
    secrets = trust.load(layout)
    found = wiring.processes(layout, secrets, addresses, web_root=None, outer={})
    return {process.name: process.environment for process in found}


def test_agents_of_other_machines_are_told_another_way_than_the_one_here(layout):
    ingress = Ingress("hub.example.org", 443)
    wired = through_an_ingress(layout, ingress, ingress.prepare(layout, datetime.now(UTC)))
    auth, relay = wired["auth"], wired["vnc-proxy"]
    assert auth["STREAMSPACE_AUTH_ENROLMENT_NATS_URLS"] == "wss://hub.example.org:443/bus"
    assert auth["STREAMSPACE_AUTH_ENROLMENT_TUNNEL_URL"] == "wss://hub.example.org:443"
    assert auth["STREAMSPACE_AUTH_FIRST_CLUSTER_NATS_URLS"] == "nats://127.0.0.1:4222"
    here = auth["STREAMSPACE_AUTH_FIRST_CLUSTER_TUNNEL_URL"]
    assert here == "ws://127.0.0.1:8081"
    # The relay has each dial what its enrolment says; agents dial nothing else.
    assert relay["STREAMSPACE_VNC_PROXY_TUNNEL_URL"] == "wss://hub.example.org:443"
    told = json.loads(relay["STREAMSPACE_VNC_PROXY_CLUSTER_TUNNEL_URLS"])
    assert told == {wiring.CLUSTER: here}


def test_the_ingress_holds_its_certificate_and_no_credential(layout):
    ingress = Ingress("hub.example.org")
    environment = through_an_ingress(layout, ingress, ingress.prepare(layout, datetime.now(UTC)))[
        "agent-ingress"
    ]
    assert not any("CREDENTIALS" in name for name in environment)
    assert environment["STREAMSPACE_AGENT_INGRESS_BUS_ADDRESS"] == "127.0.0.1:9222"
    assert environment["STREAMSPACE_AGENT_INGRESS_RELAY_ADDRESS"] == "127.0.0.1:8081"


def test_a_certificate_of_ones_own_is_served_and_vouched_for_by_who_signed_it(layout):
    own = Certificate(Path("/own/tls.crt"), Path("/own/tls.key"))
    wired = through_an_ingress(layout, Ingress("hub.example.org", own=own), own)
    assert wired["agent-ingress"]["STREAMSPACE_AGENT_INGRESS_CERTIFICATE_FILE"] == "/own/tls.crt"
    assert "STREAMSPACE_AUTH_ENROLMENT_CA_FILE" not in wired["auth"]
    own = Certificate(own.certificate, own.key, Path("/own/ca.crt"))
    wired = through_an_ingress(layout, Ingress("hub.example.org", own=own), own)
    assert wired["auth"]["STREAMSPACE_AUTH_ENROLMENT_CA_FILE"] == "/own/ca.crt"


def test_by_default_nobody_comes_in_from_elsewhere(layout, wired):
    environments = wired[1]
    assert wiring.INGRESS not in environments
    for environment in environments.values():
        assert not any("wss://" in value for value in environment.values())
    text = trust.write_credentials(layout, wired[0], nats_port=4222).read_text()
    assert "websocket" not in text
    assert 'listen: "127.0.0.1:4222"' in text
