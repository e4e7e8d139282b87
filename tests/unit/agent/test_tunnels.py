"""Where an agent may be made to dial, and what becomes of a tunnel that does not come about."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamspace_agent.ports import SessionUnreachable
from streamspace_agent.tunnels import LONGEST_WAIT, SHORTEST_WAIT, Tunnels, is_allowed
from streamspace_common.contracts.clusters import OpenTunnel
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.relay.pump import Leg
from streamspace_common.testing.clock import FakeClock

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("dial_url", "tunnel_url", "allowed"),
    [
        ("wss://relay.example.com/tunnels/1", "https://relay.example.com", True),
        ("wss://relay.example.com/tunnels/1", "wss://relay.example.com/tunnels", True),
        ("wss://relay.example.com:443/tunnels/1", "wss://relay.example.com/tunnels/", True),
        ("ws://127.0.0.1:8081/tunnels/1", "http://127.0.0.1:8081", True),
        ("ws://RELAY/tunnels/1", "ws://relay", True),
        ("ws://relay.example.com/tunnels/1", "wss://relay.example.com", False),
        ("wss://relay.example.com:8443/t", "wss://relay.example.com", False),
        ("wss://evil.example.com/t", "wss://relay.example.com", False),
        ("wss://relay.example.com.evil.com/t", "wss://relay.example.com", False),
        ("wss://relay.example.com@evil.com/t", "wss://relay.example.com", False),
        ("wss://user:pw@relay.example.com/t", "wss://relay.example.com", False),
        ("wss://relay.example.com/other", "wss://relay.example.com/tunnels", False),
        ("wss://relay.example.com/tunnelsx", "wss://relay.example.com/tunnels", False),
        ("wss://relay.example.com/tunnels/../x", "wss://relay.example.com/tunnels", False),
        ("https://relay.example.com/t", "https://relay.example.com", False),
        ("file:///etc/passwd", "wss://relay.example.com", False),
        ("ws://relay:port/t", "ws://relay", False),
        ("", "ws://relay", False),
        ("ws://relay/t", None, False),
    ],
)
def test_only_the_relay_is_dialled(dial_url: str, tunnel_url: str | None, allowed: bool) -> None:
    assert is_allowed(dial_url, tunnel_url) is allowed


class SilentLeg(Leg):
    """A session that answers nothing and notes how it was left."""

    def __init__(self) -> None:
        super().__init__()
        self.left: str | None = None

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.left = "closed"


class OneSession:
    def __init__(self, leg: Leg | None) -> None:
        self.leg = leg

    async def dial(self, session: SessionId, port: int) -> Leg:
        if self.leg is None:
            raise SessionUnreachable("The session is not running here.")
        return self.leg


def request(seconds: float = 5) -> OpenTunnel:
    return OpenTunnel(
        tunnel_id="t1",
        secret="secret",
        dial_url="ws://relay/t1",
        session_id=SessionId("s1"),
        port=5900,
        deadline=NOW + timedelta(seconds=seconds),
    )


def tunnels(leg: Leg | None, dial: Any) -> Tunnels:
    runtime: Any = OneSession(leg)
    return Tunnels(runtime, "host-1", "ws://relay", FakeClock(now=NOW), dial)


async def test_the_relay_is_not_dialled_for_a_session_that_does_not_answer() -> None:
    async def dial(*_: Any) -> Leg:
        raise AssertionError("dialled")

    with pytest.raises(ProblemError) as refused:
        await tunnels(None, dial).open_tunnel(request())
    assert refused.value.problem.code is Code.SESSION_UNREACHABLE


async def test_a_session_is_let_go_when_the_relay_does_not_answer() -> None:
    leg = SilentLeg()

    async def dial(*_: Any) -> Leg:
        raise ConnectionRefusedError(111, "refused")

    with pytest.raises(ProblemError) as refused:
        await tunnels(leg, dial).open_tunnel(request())
    assert refused.value.problem.code is Code.SERVICE_UNAVAILABLE
    assert leg.left == "closed"


@pytest.mark.parametrize(
    ("seconds", "waits"), [(5, 5), (-3600, SHORTEST_WAIT), (3600, LONGEST_WAIT)]
)
async def test_the_dial_back_waits_for_the_deadline_but_never_absurdly(
    seconds: float, waits: float
) -> None:
    asked: list[float] = []

    async def dial(_url: str, headers: dict[str, str], timeout: float) -> Leg:
        assert headers == {"Authorization": "Bearer secret"}
        asked.append(timeout)
        raise TimeoutError

    with pytest.raises(ProblemError):
        await tunnels(SilentLeg(), dial).open_tunnel(request(seconds))
    assert asked == [waits]
