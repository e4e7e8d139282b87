"""When an agent asks for its next credential, and what it says while it gets none."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import structlog

from streamspace_agent import credential as module
from streamspace_agent.credential import WorkingCredential
from streamspace_agent.keeping import CredentialFile
from streamspace_common.bus import BusUnavailableError, CredentialRefusedError, Identity
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import AgentCredential
from streamspace_common.runtime.clock import SystemClock
from streamspace_common.testing.waiting import eventually

ENROLMENT = Enrolment(
    cluster_id=ClusterId("lab"), nats_urls=("nats://a",), credentials="...", tunnel_url="ws://a"
)
LAB, OTHER = ClusterId("lab"), ClusterId("other")


class Auth:
    """Gives numbered tokens, or fails as it is told."""

    def __init__(self, *failures: Exception, lifetime: int = 3600) -> None:
        self.failures = list(failures)
        self.lifetime = lifetime
        self.keys: list[str] = []

    async def __call__(self, enrolment: Enrolment, public_key: str) -> AgentCredential:
        if self.failures:
            raise self.failures.pop(0)
        self.keys.append(public_key)
        return AgentCredential(token=f"token-{len(self.keys)}", expires_in=self.lifetime)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.0)


def working(
    ask: Callable[[Enrolment, str], Awaitable[AgentCredential]], **more: object
) -> WorkingCredential:
    return WorkingCredential(lambda: ENROLMENT, ask, SystemClock(), **more)  # type: ignore[arg-type]


async def test_each_agent_asks_with_a_key_of_its_own_and_keeps_it() -> None:
    auth = Auth(lifetime=0)
    one, other = working(auth), working(auth)
    await one.begin()
    await other.begin()
    assert len(set(auth.keys)) == 2
    shown: list[str] = []

    async def show() -> None:
        shown.append(one.identity.token)

    running = asyncio.create_task(one.run(show))
    await eventually(lambda: len(shown) > 2, message="due at once, so it goes on asking")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert set(auth.keys[2:]) == {one.identity.public_key}
    assert shown[:2] == ["token-3", "token-4"]


async def test_a_credential_that_is_not_due_is_left_alone_until_it_is_refused() -> None:
    auth = Auth()
    one = working(auth)
    await one.begin()
    shown: list[str] = []

    async def show() -> None:
        shown.append(one.identity.token)

    running = asyncio.create_task(one.run(show))
    await asyncio.sleep(0)
    assert auth.keys == [one.identity.public_key]
    one.refused()
    await eventually(lambda: shown == ["token-2"])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_keeps_it_from_a_credential_is_told_once_each() -> None:
    away = BusUnavailableError("NATS is not reachable right now")
    refused = CredentialRefusedError("authorization violation")
    unknown = ProblemError.of(Code.FORBIDDEN, "Cluster lab is not enrolled.")
    auth = Auth(away, away, refused, refused, unknown)
    with structlog.testing.capture_logs() as logs:
        await working(auth).begin()
    told = [(line["log_level"], line["event"]) for line in logs]
    assert [level for level, _ in told] == ["warning", "error", "info"]
    assert "waiting for a credential" in told[0][1]
    assert "streamspace clusters enrol ID --replace" in told[1][1]


async def test_an_enrolment_of_another_cluster_is_not_taken_up() -> None:
    enrolments = [ENROLMENT]
    auth = Auth()
    one = WorkingCredential(lambda: enrolments[-1], auth, SystemClock())
    enrolments.append(ENROLMENT.model_copy(update={"cluster_id": OTHER}))
    with structlog.testing.capture_logs() as logs:
        beginning = asyncio.create_task(one.begin())
        await eventually(lambda: any("Restart it" in line["event"] for line in logs))
        enrolments.append(ENROLMENT)
        await beginning
    assert one.identity.token == "token-1"


async def test_the_last_credential_is_taken_up_while_it_is_good(tmp_path: Path) -> None:
    auth = Auth()
    keeping = CredentialFile(tmp_path, LAB, SystemClock())
    await working(auth, keeping=keeping).begin()
    keeping.close()

    again = CredentialFile(tmp_path, LAB, SystemClock())
    restarted = working(auth, keeping=again)
    await restarted.begin()
    assert restarted.identity.public_key == auth.keys[0]
    assert len(auth.keys) == 1
    again.close()

    foreign = CredentialFile(tmp_path, OTHER, SystemClock())
    assert foreign.load() is None
    foreign.close()


async def test_replicas_that_share_a_folder_have_a_key_each(tmp_path: Path) -> None:
    files = [CredentialFile(tmp_path, LAB, SystemClock()) for _ in range(3)]
    for number, each in enumerate(files):
        assert each.load() is None
        each.save(Identity.fresh(), 100 + number)
    kept = [each.load() for each in files]
    assert len({found[0].public_key for found in kept if found}) == 3
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    for each in files:
        each.close()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"expiresAt": "soon"}'])
def test_a_damaged_file_is_none(tmp_path: Path, content: str) -> None:
    keeping = CredentialFile(tmp_path, LAB, SystemClock())
    (tmp_path / "credential-0.json").write_text(content)
    assert keeping.load() is None
    keeping.forget()
    assert not (tmp_path / "credential-0.json").exists()
    keeping.close()


def test_one_that_is_about_to_end_is_not_worth_taking_up(tmp_path: Path) -> None:
    keeping = CredentialFile(tmp_path, LAB, SystemClock())
    keeping.save(Identity.fresh(), 1)
    assert keeping.load() is None
    keeping.close()
