"""Who is told what."""

import json
from pathlib import Path

import pytest

from streamspace_embedded import trust, wiring
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
