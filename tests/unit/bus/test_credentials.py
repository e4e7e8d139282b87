"""Tokens: signed by whom they say, holding exactly the rights of the table."""

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import VerifyKey

from streamspace_common.bus.credentials import (
    KeyKind,
    Trust,
    agent_credentials,
    mint_accounts,
    mint_operator,
    new_seed,
    public_key,
    server_config,
    service_credentials,
)
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.permissions import SERVICES, agent

TRUST = Trust.new()
LAB = ClusterId("lab")


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token whose signature fits its issuer."""
    head, body, signature = token.split(".")
    assert json.loads(_decode(head)) == {"typ": "JWT", "alg": "ed25519-nkey"}
    claims: dict[str, Any] = json.loads(_decode(body))
    issuer: str = claims["iss"]
    public = base64.b32decode(issuer + "=" * (-len(issuer) % 8))[1:33]
    VerifyKey(public).verify(f"{head}.{body}".encode(), _decode(signature))
    return claims


def token_in(credentials: str) -> str:
    found = re.search(r"BEGIN NATS USER JWT-----\n(\S+)\n", credentials)
    assert found
    return found[1]


@pytest.mark.parametrize(
    ("kind", "seed", "public"),
    [(KeyKind.OPERATOR, "SO", "O"), (KeyKind.ACCOUNT, "SA", "A"), (KeyKind.USER, "SU", "U")],
)
def test_a_key_shows_its_kind(kind: KeyKind, seed: str, public: str) -> None:
    made = new_seed(kind)
    assert made.startswith(seed)
    assert public_key(made).startswith(public)
    assert new_seed(kind) != made


def test_an_agent_holds_its_clusters_rights_and_nothing_else() -> None:
    claims = claims_of(token_in(agent_credentials(TRUST.agents, LAB)))
    assert claims["nats"]["pub"]["allow"] == list(agent(LAB).publish)
    assert claims["nats"]["sub"]["allow"] == list(agent(LAB).subscribe)
    assert claims["nats"]["resp"]["max"] == 1
    assert claims["nats"]["issuer_account"] == TRUST.agents.account
    assert claims["iss"] == public_key(TRUST.agents_signing_seed)
    assert "exp" not in claims


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_holds_the_rights_of_the_table(name: str) -> None:
    claims = claims_of(token_in(service_credentials(TRUST.services, name)))
    assert claims["nats"]["pub"]["allow"] == list(SERVICES[name].publish)
    assert claims["nats"]["sub"]["allow"] == list(SERVICES[name].subscribe)
    assert claims["name"] == name


def test_an_expiry_stands_in_the_token() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    claims = claims_of(token_in(agent_credentials(TRUST.agents, LAB, expires_at=at)))
    assert claims["exp"] == int(at.timestamp())


def test_two_agents_never_share_a_key() -> None:
    first, second = (token_in(agent_credentials(TRUST.agents, LAB)) for _ in range(2))
    assert claims_of(first)["sub"] != claims_of(second)["sub"]


def test_only_core_has_storage_and_the_operator_signs_every_account() -> None:
    system, core, agents = (claims_of(account.token) for account in mint_accounts(TRUST))
    operator = public_key(TRUST.operator_seed)
    assert {system["iss"], core["iss"], agents["iss"]} == {operator}
    assert core["nats"]["limits"]["disk_storage"] == -1
    assert agents["nats"]["limits"]["disk_storage"] == 0
    assert claims_of(mint_operator(TRUST))["nats"]["system_account"] == system["sub"]


def test_the_servers_configuration_holds_no_secret(tmp_path: Path) -> None:
    config = server_config(TRUST, port=4222, store_dir=tmp_path, http_port=8222)
    for seed in TRUST.model_dump().values():
        assert seed not in config
    assert 'listen: "127.0.0.1:4222"' in config
    assert 'http: "127.0.0.1:8222"' in config
    assert "sync_interval: always" in config


def test_trust_survives_being_written_down() -> None:
    assert Trust.from_json(TRUST.to_json()) == TRUST


def test_an_issuer_of_agents_cannot_make_a_service() -> None:
    """Its users belong to the agents' account, whatever permissions they are given."""
    claims = claims_of(token_in(service_credentials(TRUST.agents, "session")))
    assert claims["nats"]["issuer_account"] == TRUST.agents.account != TRUST.services.account
