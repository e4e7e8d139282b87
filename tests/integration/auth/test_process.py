"""`streamspace-auth` as a process: its start, its end, its probes, and what it logs."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.integration.auth.installation import Installation

from streamspace_common.bus import provision
from streamspace_common.bus.credentials import service_credentials
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.requests import AuthMethods, ChangePassword, EnrolCluster
from streamspace_common.testing.waiting import eventually

PASSWORD = "a password of some length"


class Process:
    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.output = b""
        self.inner: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]

    async def start(self) -> None:
        self.inner = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "streamspace_auth.main",
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.inner.stdout is not None
        while chunk := await self.inner.stdout.read(65536):
            self.output += chunk

    @property
    def text(self) -> str:
        return self.output.decode()

    def port(self) -> int | None:
        found = re.search(r'"health_port": (\d+)', self.text)
        return int(found[1]) if found else None

    async def ready(self) -> None:
        await eventually(self.port, timeout=90, message="auth is ready")

    async def get(self, path: str) -> str:
        def fetch() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port()}{path}") as answer:
                body: bytes = answer.read()
                return body.decode()

        return await asyncio.to_thread(fetch)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.inner.returncode is None:
            self.inner.send_signal(number)
        code = await self.inner.wait()
        await self._reading
        return code


MakeProcess = Callable[..., Process]


@pytest.fixture
async def process(bare: Installation) -> AsyncIterator[MakeProcess]:
    """Makes processes; ended with the test."""
    made: list[Process] = []
    bare.nats.start()
    await provision(await bare.connect("session"))
    credentials = bare.folder / "auth.creds"
    credentials.write_text(service_credentials(bare.trust.services, "auth"))
    settings = bare.settings()

    def make(**changes: Any) -> Process:
        environment = {
            "PATH": os.environ["PATH"],
            "STREAMSPACE_AUTH_DATABASE_URL": bare.database_url,
            "STREAMSPACE_NATS_URL": bare.nats.url,
            "STREAMSPACE_AUTH_NATS_CREDENTIALS": str(credentials),
            "STREAMSPACE_AUTH_ENCRYPTION_KEY": bare.encryption_key,
            "STREAMSPACE_AUTH_BUS_AUTHORITY_FILE": str(settings.bus_authority_file),
            "STREAMSPACE_AUTH_BUS_ACCOUNTS_CREDENTIALS": str(settings.bus_accounts_credentials),
            "STREAMSPACE_AUTH_LOG_LEVEL": "DEBUG",
        }
        given = {name: str(value) for name, value in changes.items() if value is not None}
        for name in changes:
            environment.pop(name, None)
        one = Process(environment | given)
        made.append(one)
        return one

    yield make
    for one in made:
        with contextlib.suppress(ProcessLookupError):
            await one.end(signal.SIGKILL)


async def test_it_starts_answers_and_ends_in_order(
    bare: Installation, process: MakeProcess
) -> None:
    auth = process(STREAMSPACE_ADMIN_PASSWORD=PASSWORD)
    await auth.start()
    await auth.ready()
    bare.gateway = await bare.connect("gateway")
    await bare.login("admin", PASSWORD)

    assert json.loads(await auth.get("/readyz"))["checks"] == {"database": True, "bus": True}
    assert 'streamspace_logins_total{result="ok"} 1.0' in await auth.get("/metrics")
    assert await auth.end() == 0
    assert "Traceback" not in auth.text


async def test_two_replicas_started_together_share_one_admin_and_the_work(
    bare: Installation, process: MakeProcess
) -> None:
    path = bare.folder / "admin-password"
    replicas = [process(STREAMSPACE_AUTH_ADMIN_PASSWORD_FILE=path) for _ in range(2)]
    await asyncio.gather(*(replica.start() for replica in replicas))
    await asyncio.gather(*(replica.ready() for replica in replicas))
    bare.gateway = await bare.connect("gateway")
    for _ in range(6):
        tokens = await bare.login("admin", path.read_text().strip(), address=None)
        await bare.verified(tokens)
    assert len(await bare.sql("SELECT 1 FROM users")) == 1

    # One dies under requests; the other goes on.
    await replicas[0].end(signal.SIGKILL)

    async def goes_on() -> bool:
        with contextlib.suppress(ProblemError):  # asked of the one that has just died
            await bare.refresh(tokens.refresh_token)
            return True
        return False

    await eventually(goes_on, timeout=30)


async def test_no_secret_is_ever_logged(bare: Installation, process: MakeProcess) -> None:
    enrolment_file = bare.folder / "local.json"
    auth = process(
        STREAMSPACE_ADMIN_PASSWORD=PASSWORD,
        STREAMSPACE_AUTH_FIRST_CLUSTER="local",
        STREAMSPACE_AUTH_FIRST_CLUSTER_FILE=enrolment_file,
    )
    await auth.start()
    await auth.ready()
    bare.gateway = await bare.connect("gateway")
    tokens = await bare.login("admin", PASSWORD)
    bare.admin = await bare.verified(tokens)
    with contextlib.suppress(ProblemError):
        await bare.login("typed-here-by-mistake", "a-wrong-password")
    with contextlib.suppress(ProblemError):
        await bare.create("ada", password="short-and-refused", email="none")
    await bare.create("ada", password="a-password-that-is-kept")
    await bare.sql("ALTER TABLE users ADD CONSTRAINT broken CHECK (username <> 'bob')")
    with contextlib.suppress(ProblemError):
        await bare.create("bob", password="a-password-that-fails-inside")
    await bare.call(
        AuthMethods.CHANGE_PASSWORD,
        ChangePassword(
            principal=bare.admin, current_password=PASSWORD, new_password="a-whole-new-password"
        ),
    )
    newer = await bare.refresh(tokens.refresh_token)
    with contextlib.suppress(ProblemError):
        await bare.refresh("ssr_never-issued-by-anybody")
    enrolment = await bare.call(
        AuthMethods.ENROL_CLUSTER, EnrolCluster(principal=bare.admin, cluster_id="lab")
    )
    hashes = await bare.sql("SELECT password_hash FROM users")
    await auth.end()

    assert "login failed" in auth.text
    assert "bus.handler_failed" in auth.text
    seeds = re.findall(r"SU[A-Z2-7]{50,}", enrolment.credentials + enrolment_file.read_text())
    assert len(seeds) == 2
    for secret in (
        PASSWORD,
        "typed-here-by-mistake",
        "a-wrong-password",
        "short-and-refused",
        "a-password-that-is-kept",
        "a-password-that-fails-inside",
        "a-whole-new-password",
        "ssr_",
        *tokens.access_token.split(".")[1:],
        *newer.access_token.split(".")[1:],
        *seeds,
        bare.encryption_key,
        bare.trust.operator_signing_seed,
        bare.trust.activation_seed,
        "$argon2",
        *(row["password_hash"] for row in hashes),
    ):
        assert secret not in auth.text


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        (
            {"STREAMSPACE_AUTH_ENCRYPTION_KEY": "changeme"},
            2,
            "STREAMSPACE_AUTH_ENCRYPTION_KEY is not valid: it is",
        ),
        (
            {"STREAMSPACE_AUTH_ENCRYPTION_KEY": "c2hvcnQ="},
            2,
            "STREAMSPACE_AUTH_ENCRYPTION_KEY is not valid: it is not 32 bytes long; make one with",
        ),
        (
            {"STREAMSPACE_AUTH_ENCRYPTION_KEY": None},
            2,
            "STREAMSPACE_AUTH_ENCRYPTION_KEY is not set",
        ),
        ({"STREAMSPACE_AUTH_DATABASE_URL": "mysql://x"}, 2, "it does not begin with postgresql://"),
        ({"STREAMSPACE_AUTH_BUS_AUTHORITY_FILE": "/nowhere"}, 1, "/nowhere cannot be read"),
        ({"STREAMSPACE_ADMIN_PASSWORD": "too short"}, 1, "Use 10 to 1024 characters"),
        ({"STREAMSPACE_AUTH_FIRST_CLUSTER": "core"}, 2, "no cluster may be called 'core'"),
        ({"STREAMSPACE_AUTH_FIRST_CLUSTER": "lab"}, 2, "are given together or not at all"),
    ],
)
async def test_what_it_cannot_start_with_is_one_clear_sentence(
    bare: Installation, process: MakeProcess, changes: dict[str, Any], status: int, sentence: str
) -> None:
    auth = process(**changes)
    await auth.start()
    code = await auth.inner.wait()
    await auth.end()
    assert sentence in auth.text
    assert "Traceback" not in auth.text
    assert code == status


def test_the_settings_name_the_inbox_that_its_credential_allows() -> None:
    assert SERVICES["auth"].inbox == "_INBOX_auth"
