"""Tokens: signed by whom they say, holding exactly the rights of the table."""

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import VerifyKey

from streamspace_common.bus.accounts import ClusterKeys, cluster_claims, core_claims
from streamspace_common.bus.credentials import (
    Issuer,
    Trust,
    account_credentials,
    creds,
    mint_accounts,
    mint_operator,
    mint_scoped_user,
    operator_credentials,
    read_creds,
    server_config,
    service_credentials,
)
from streamspace_common.bus.signing import KeyKind, is_public_key, new_seed, public_key
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.permissions import (
    ACCOUNTS,
    CORE_EXPORTS,
    SERVICES,
    agent,
    cluster_imports,
    joining,
)
from streamspace_common.protogen.asyncapi import matches

TRUST = Trust.new()
LAB, OTHER = ClusterId("lab"), ClusterId("other")
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
ACCOUNT, JOINING, AGENTS = (new_seed(KeyKind.ACCOUNT) for _ in range(3))


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


def claims_of_cluster(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "cluster": LAB,
        "account": public_key(ACCOUNT),
        "keys": ClusterKeys(public_key(JOINING), public_key(AGENTS)),
        "core_account": TRUST.authority.core_account,
        "activation_seed": TRUST.activation_seed,
        "users_since": NOON,
    }
    return cluster_claims(**(given | changes))


def test_a_clusters_keys_sign_users_with_its_rights_and_no_others() -> None:
    scopes = {scope["role"]: scope for scope in claims_of_cluster()["signing_keys"]}
    assert scopes["agents"]["key"] == public_key(AGENTS)
    assert scopes["agents"]["template"]["pub"]["allow"] == list(agent(LAB).publish)
    assert scopes["agents"]["template"]["sub"]["allow"] == list(agent(LAB).subscribe)
    assert "resp" not in scopes["agents"]["template"]
    assert scopes["joining"]["template"]["pub"]["allow"] == list(joining(LAB).publish)
    assert "resp" not in scopes["joining"]["template"]
    assert claims_of_cluster(keys=None)["signing_keys"] == []


def test_an_agents_token_brings_no_rights_of_its_own() -> None:
    issuer = Issuer(account=public_key(ACCOUNT), signing_seed=AGENTS)
    user = public_key(new_seed(KeyKind.USER))
    token = mint_scoped_user(issuer, user, "agent-lab", issued_at=NOON, expires_at=NOON)
    claims = claims_of(token)
    assert claims["nats"] == {"type": "user", "issuer_account": issuer.account, "version": 2}
    assert (claims["sub"], claims["iss"]) == (user, public_key(AGENTS))
    assert claims["exp"] == claims["iat"] == int(NOON.timestamp())


def test_a_cluster_imports_its_own_part_of_each_export_and_is_activated_for_it() -> None:
    imports = claims_of_cluster()["imports"]
    assert len(imports) == len(CORE_EXPORTS)
    for each, export in zip(imports, CORE_EXPORTS, strict=True):
        assert matches(export.subject, each["subject"])
        assert LAB in each["subject"].replace("-", ".").split(".")
        activation = claims_of(each["token"])
        assert activation["iss"] == public_key(TRUST.activation_seed)
        assert activation["sub"] == public_key(ACCOUNT)
        assert activation["nats"]["subject"] == each["subject"]


def test_no_two_clusters_import_the_same_subject() -> None:
    ours, theirs = ({one.subject for one in cluster_imports(each)} for each in (LAB, OTHER))
    assert not ours & theirs


def test_users_from_before_an_enrolment_are_revoked_and_those_of_that_second_are_not() -> None:
    assert claims_of_cluster()["revocations"] == {"*": int(NOON.timestamp()) - 1}


def test_equal_claims_make_equal_accounts() -> None:
    assert claims_of_cluster() == claims_of_cluster()
    assert mint_accounts(TRUST) == mint_accounts(TRUST)


def test_core_exports_to_nobody_who_is_not_activated() -> None:
    claims = core_claims("A1", "A2")
    assert all(export["token_req"] for export in claims["exports"])
    assert claims["imports"] == []
    [services, activations] = claims["signing_keys"]
    assert services == "A1"
    # Whoever has that key makes no user that can do anything.
    assert activations["template"]["pub"] == activations["template"]["sub"] == {"deny": [">"]}


def test_auth_is_given_nothing_that_makes_a_user_of_core() -> None:
    told = TRUST.authority.to_json().decode()
    for seed in (TRUST.operator_seed, TRUST.core_seed, TRUST.core_signing_seed, TRUST.system_seed):
        assert seed not in told
    claims = claims_of(token_in(account_credentials(TRUST)))
    assert claims["nats"]["pub"]["allow"] == list(ACCOUNTS.publish) == ["$SYS.REQ.CLAIMS.UPDATE"]
    assert claims["iss"] == public_key(TRUST.system_seed)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_holds_the_rights_of_the_table(name: str) -> None:
    claims = claims_of(token_in(service_credentials(TRUST.services, name)))
    assert claims["nats"]["pub"]["allow"] == list(SERVICES[name].publish)
    assert claims["nats"]["sub"]["allow"] == list(SERVICES[name].subscribe)
    assert claims["name"] == name


def test_an_expiry_stands_in_the_token() -> None:
    claims = claims_of(token_in(operator_credentials(TRUST.services, "ops", expires_at=NOON)))
    assert claims["exp"] == int(NOON.timestamp())
    assert "resp" not in claims["nats"]


def test_two_users_never_share_a_key() -> None:
    first, second = (token_in(service_credentials(TRUST.services, "auth")) for _ in range(2))
    assert claims_of(first)["sub"] != claims_of(second)["sub"]


def test_a_credentials_document_is_read_back_and_anything_else_refused() -> None:
    user = read_creds(service_credentials(TRUST.services, "auth"))
    assert read_creds(creds(user.token, user.seed)) == user
    for text in ("", "SUAAA", user.token, user.seed, creds("", user.seed)):
        with pytest.raises(ValueError, match=r"not a NATS \.creds document"):
            read_creds(text)


def test_a_public_key_is_told_from_another_text() -> None:
    public = public_key(new_seed(KeyKind.USER))
    assert is_public_key(public, KeyKind.USER)
    other = "A" if public[10] != "A" else "B"
    for text in ("", "U", public[:-1], public[:10] + other + public[11:], public.lower()):
        assert not is_public_key(text, KeyKind.USER)
    assert not is_public_key(public_key(ACCOUNT), KeyKind.USER)


def test_only_core_has_storage_and_the_operator_signs_every_account() -> None:
    system, core = (claims_of(account.token) for account in mint_accounts(TRUST))
    operator = public_key(TRUST.operator_seed)
    assert {system["iss"], core["iss"]} == {operator}
    assert core["nats"]["limits"]["disk_storage"] == -1
    assert claims_of_cluster()["limits"]["disk_storage"] == 0
    told = claims_of(mint_operator(TRUST))["nats"]
    assert told["system_account"] == system["sub"]
    assert told["signing_keys"] == [public_key(TRUST.operator_signing_seed)]


def test_the_servers_configuration_holds_no_secret(tmp_path: Path) -> None:
    config = server_config(TRUST, port=4222, store_dir=tmp_path, http_port=8222)
    for seed in TRUST.model_dump().values():
        assert seed not in config
    assert 'listen: "127.0.0.1:4222"' in config
    assert 'http: "127.0.0.1:8222"' in config
    assert "sync_interval: always" in config


def test_trust_survives_being_written_down() -> None:
    assert Trust.from_json(TRUST.to_json()) == TRUST


def test_keys_that_are_known_stay_and_others_are_made() -> None:
    known = {"operatorSeed": TRUST.operator_seed, "agentsSeed": "SA-of-an-older-version"}
    completed = Trust.completed(known)
    assert completed.operator_seed == TRUST.operator_seed
    assert completed.activation_seed.startswith("SA")
