"""What a new installation finds, and what starting again leaves alone."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.integration.auth.installation import Installation

from streamspace_auth.main import Parts, prepare
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import LoginRequest
from streamspace_common.runtime.supervisor import FatalError
from streamspace_common.store.engine import Database

Start = Callable[..., Awaitable[Parts]]

ADMIN_PASSWORD = "correct horse battery staple"


def private(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.fixture
async def start(bare: Installation) -> AsyncIterator[Start]:
    """`prepare`, as often as wanted, with settings of the test's own."""
    opened: list[tuple[Parts, Database]] = []

    async def start_once(**changes: Any) -> Parts:
        parts, database = bare.parts(**changes)
        opened.append((parts, database))
        await prepare(bare.settings(**changes), parts)
        return parts

    yield start_once
    for parts, database in opened:
        parts.close()
        await database.dispose()


async def test_a_generated_password_is_written_to_a_private_file(
    bare: Installation, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    path = bare.folder / "new" / "admin-password"
    await start(admin_password=None, admin_password_file=path)
    password = path.read_text().strip()
    assert private(path)
    assert len(password) >= 20
    out, err = capfd.readouterr()
    assert password not in out + err

    path.unlink()
    await start(admin_password=None, admin_password_file=path)
    assert not path.exists()
    rows = await bare.sql("SELECT username, role FROM users")
    assert [tuple(row) for row in rows] == [("admin", Role.ADMIN)]


async def test_without_a_file_the_password_is_shown_once_on_stderr(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    await start(admin_password=None)
    banner = capfd.readouterr().err
    assert "Sign in as  admin  with the password" in banner
    await start(admin_password=None)
    assert "password" not in capfd.readouterr().err


async def test_a_given_password_is_used_and_not_shown(
    bare: Installation, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    path = bare.folder / "admin-password"
    await start(admin_password_file=path)
    assert not path.exists()
    assert ADMIN_PASSWORD not in "".join(capfd.readouterr())


async def test_a_given_password_that_is_too_weak_is_one_sentence(
    bare: Installation, start: Start
) -> None:
    with pytest.raises(FatalError, match="STREAMSPACE_ADMIN_PASSWORD is not good enough: Use 10"):
        await start(admin_password="short")
    assert await bare.sql("SELECT 1 FROM users") == []


async def test_replicas_that_start_together_make_one_admin_one_key_and_one_enrolment(
    bare: Installation, start: Start
) -> None:
    path, enrolment = bare.folder / "admin-password", bare.folder / "local.json"
    changes = {
        "admin_password": None,
        "admin_password_file": path,
        "first_cluster": "local",
        "first_cluster_file": enrolment,
    }
    await asyncio.gather(*(start(**changes) for _ in range(4)))
    for table in ("users", "signing_keys", "clusters"):
        assert len(await bare.sql(f"SELECT 1 FROM {table}")) == 1

    # The password in the file is the admin's, not one of a replica that came second.
    await bare_login(bare, path.read_text().strip())


async def bare_login(bare: Installation, password: str) -> None:
    parts, database = bare.parts()
    await parts.keys.refresh()
    tokens = await parts.sign_in.login(LoginRequest(username="admin", password=password))
    assert tokens.user.role is Role.ADMIN
    parts.close()
    await database.dispose()


async def test_the_first_cluster_is_enrolled_once_and_again_when_its_file_is_missing(
    bare: Installation, start: Start
) -> None:
    path = bare.folder / "agents" / "local.json"
    changes = {"first_cluster": "local", "first_cluster_file": path}
    await start(**changes)
    assert private(path)
    first = Enrolment.from_json(path.read_bytes())
    assert (first.cluster_id, first.nats_urls) == ("local", (bare.nats.url,))
    assert first.tunnel_url == "ws://127.0.0.1:8081"

    await start(**changes)
    assert Enrolment.from_json(path.read_bytes()) == first

    path.unlink()
    await start(**changes)
    second = Enrolment.from_json(path.read_bytes())
    assert second.credentials != first.credentials
    assert len(await bare.sql("SELECT 1 FROM outbox WHERE subject LIKE '%enrolled'")) == 2


async def test_new_addresses_are_written_without_a_new_credential(
    bare: Installation, start: Start
) -> None:
    path = bare.folder / "local.json"
    changes = {"first_cluster": "local", "first_cluster_file": path}
    await start(**changes)
    first = Enrolment.from_json(path.read_bytes())
    await start(
        **changes,
        enrolment_nats_urls="nats://a:4222, nats://b:4222",
        enrolment_tunnel_url="wss://streams.example.org",
    )
    second = Enrolment.from_json(path.read_bytes())
    assert second.credentials == first.credentials
    assert second.nats_urls == ("nats://a:4222", "nats://b:4222")
    assert second.tunnel_url == "wss://streams.example.org"


async def test_the_first_clusters_agents_may_find_it_elsewhere_than_others(
    bare: Installation, start: Start
) -> None:
    path = bare.folder / "local.json"
    changes = {
        "first_cluster": "local",
        "first_cluster_file": path,
        "first_cluster_nats_urls": "nats://127.0.0.1:4222",
        "first_cluster_tunnel_url": "ws://127.0.0.1:8081",
        "enrolment_nats_urls": "wss://hub.example.org:8443/bus",
        "enrolment_tunnel_url": "wss://hub.example.org:8443",
    }
    await start(**changes)
    for _ in range(2):  # enrolled, and then relocated
        first = Enrolment.from_json(path.read_bytes())
        assert first.nats_urls == ("nats://127.0.0.1:4222",)
        assert first.tunnel_url == "ws://127.0.0.1:8081"
        path.write_bytes(first.model_copy(update={"tunnel_url": "ws://old"}).to_json())
        await start(**changes)
    parts, database = bare.parts(**changes)
    try:
        now = datetime.now(UTC)
        for cluster, tunnel_url in (("local", "ws://127"), ("east", "wss://hub")):
            minted = parts.enroller.mint(ClusterId(cluster), now, account=None)
            assert minted.enrolment.tunnel_url.startswith(tunnel_url)
    finally:
        parts.close()
        await database.dispose()


@pytest.mark.parametrize("broken", ["", "{}", "not json", '{"clusterId": "local"}'])
async def test_a_file_that_is_not_an_enrolment_is_written_anew(
    bare: Installation, start: Start, broken: str
) -> None:
    path = bare.folder / "local.json"
    path.write_text(broken)
    await start(first_cluster="local", first_cluster_file=path)
    assert json.loads(path.read_bytes())["clusterId"] == "local"


async def test_an_enrolment_of_another_installation_is_replaced(
    bare: Installation, start: Start
) -> None:
    path = bare.folder / "local.json"
    changes = {"first_cluster": "local", "first_cluster_file": path}
    await start(**changes)
    first = Enrolment.from_json(path.read_bytes())
    await bare.sql("DELETE FROM clusters")
    await start(**changes)
    assert Enrolment.from_json(path.read_bytes()).credentials != first.credentials


async def test_a_cluster_of_a_version_with_one_account_for_all_is_enrolled_anew(
    bare: Installation, start: Start
) -> None:
    path = bare.folder / "local.json"
    changes = {"first_cluster": "local", "first_cluster_file": path}
    await start(**changes)
    first = Enrolment.from_json(path.read_bytes())
    await bare.sql(
        "UPDATE clusters SET account = NULL, agents_key = NULL, sealed_agents_seed = NULL"
    )
    await start(**changes)
    assert Enrolment.from_json(path.read_bytes()).credentials != first.credentials


async def test_a_first_cluster_that_was_revoked_stays_so(bare: Installation, start: Start) -> None:
    path = bare.folder / "local.json"
    changes = {"first_cluster": "local", "first_cluster_file": path}
    await start(**changes)
    first = path.read_bytes()
    await bare.sql("UPDATE clusters SET revoked_at = now()")
    await start(**changes)
    assert path.read_bytes() == first
    assert (await bare.sql("SELECT revoked_at FROM clusters"))[0]["revoked_at"] is not None


async def test_a_first_cluster_that_was_removed_stays_so(bare: Installation, start: Start) -> None:
    path = bare.folder / "local.json"
    changes = {"first_cluster": "local", "first_cluster_file": path}
    await start(**changes)
    await bare.sql("DELETE FROM clusters")
    await bare.sql("INSERT INTO removed_clusters VALUES ('local', now())")
    await start(**changes)
    assert await bare.sql("SELECT id FROM clusters") == []


async def test_a_key_that_cannot_open_the_signing_keys_ends_the_start_with_a_sentence(
    bare: Installation, start: Start
) -> None:
    await start()
    with pytest.raises(FatalError, match="Set STREAMSPACE_AUTH_ENCRYPTION_KEY to the key"):
        await start(encryption_key="A" * 43 + "=")


async def test_replicas_sign_with_the_same_keys(bare: Installation, start: Start) -> None:
    one, other = await start(), await start()
    assert one.keys.public_keys() == other.keys.public_keys()


async def test_an_authority_file_that_is_none_ends_the_start_with_a_sentence(
    bare: Installation, tmp_path: Path
) -> None:
    path = tmp_path / "no.json"
    with pytest.raises(FatalError, match=r"no\.json cannot be read: No such file"):
        bare.parts(bus_authority_file=path)
    damaged = bare.trust.authority.model_copy(update={"operator_signing_seed": "SUNOTASEED"})
    for text in ("", "SUNOTASEED", bare.trust.operator_seed, damaged.to_json().decode()):
        path.write_text(text)
        with pytest.raises(FatalError, match="does not hold the bus' authority") as error:
            bare.parts(bus_authority_file=path)
        assert not text or text not in str(error.value)


async def test_logging_in_is_refused_while_there_is_nobody(
    bare: Installation, start: Start
) -> None:
    parts, database = bare.parts()
    with pytest.raises(ProblemError) as refused:
        await parts.sign_in.login(LoginRequest(username="admin", password="whatever it is"))
    assert refused.value.problem.code is Code.INVALID_CREDENTIALS
    parts.close()
    await database.dispose()
