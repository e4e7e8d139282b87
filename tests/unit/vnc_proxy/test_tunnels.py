"""Who may dial back, once and in time; and which replica a tunnel belongs to."""

import base64

import pytest

from streamspace_common.testing.clock import FakeClock
from streamspace_vnc_proxy.tunnels import (
    AwaitedTunnels,
    Peers,
    TooManyTunnelsError,
    TunnelRefusedError,
    owner_address,
)


def awaited(clock: FakeClock, replica: str | None = None, limit: int = 10) -> AwaitedTunnels[str]:
    return AwaitedTunnels(clock.monotonic, replica=replica, limit=limit, ttl=10)


def refusal(tunnels: AwaitedTunnels[str], tunnel_id: str, secret: str | None) -> int:
    with pytest.raises(TunnelRefusedError) as caught:
        tunnels.claim(tunnel_id, secret)
    return caught.value.status


def test_the_right_secret_is_let_in_once(clock: FakeClock) -> None:
    tunnels = awaited(clock)
    tunnel = tunnels.expect("viewer")
    assert tunnels.claim(tunnel.id, tunnel.secret) == "viewer"
    assert refusal(tunnels, tunnel.id, tunnel.secret) == 404


@pytest.mark.parametrize("secret", [None, "", "wrong", "é"])
def test_a_wrong_secret_spoils_nothing(clock: FakeClock, secret: str | None) -> None:
    tunnels = awaited(clock)
    tunnel = tunnels.expect("viewer")
    assert refusal(tunnels, tunnel.id, secret) == 401
    assert tunnels.claim(tunnel.id, tunnel.secret) == "viewer"


def test_a_late_dial_back_is_refused(clock: FakeClock) -> None:
    tunnels = awaited(clock)
    tunnel = tunnels.expect("viewer")
    clock.advance(10)
    assert refusal(tunnels, tunnel.id, tunnel.secret) == 410
    assert len(tunnels) == 0


def test_a_forgotten_tunnel_is_unknown(clock: FakeClock) -> None:
    tunnels = awaited(clock)
    tunnel = tunnels.expect("viewer")
    tunnels.forget(tunnel)
    tunnels.forget(tunnel)
    assert refusal(tunnels, tunnel.id, tunnel.secret) == 404


def test_so_many_are_awaited_and_no_more(clock: FakeClock) -> None:
    tunnels = awaited(clock, limit=2)
    first = tunnels.expect("a")
    tunnels.expect("b")
    with pytest.raises(TooManyTunnelsError):
        tunnels.expect("c")
    tunnels.forget(first)
    tunnels.expect("c")


def test_secrets_and_ids_differ_and_the_secret_is_not_shown(clock: FakeClock) -> None:
    tunnels = awaited(clock)
    one, two = tunnels.expect("a"), tunnels.expect("a")
    assert one.id != two.id
    assert one.secret != two.secret
    assert one.secret not in repr(one)


def test_an_id_names_its_replica(clock: FakeClock) -> None:
    tunnels = awaited(clock, replica="10.42.0.7:8081")
    tunnel = tunnels.expect("viewer")
    assert tunnels.is_mine(tunnel.id)
    assert not awaited(clock, replica="10.42.0.8:8081").is_mine(tunnel.id)
    assert owner_address(tunnel.id) == ("10.42.0.7", 8081)
    six = awaited(clock, replica="[fd00::7]:8081").expect("viewer")
    assert owner_address(six.id) == ("fd00::7", 8081)


@pytest.mark.parametrize("tunnel_id", ["", "x", "here.1", "!!!.1", "eA.1", "%2e%2e.1", "é.1"])
def test_an_id_that_names_nobody_is_no_address(tunnel_id: str) -> None:
    assert owner_address(tunnel_id) is None


def test_a_lone_replica_hands_nothing_over(clock: FakeClock) -> None:
    assert owner_address(awaited(clock).expect("viewer").id) is None


@pytest.mark.parametrize(
    ("host", "port", "believed"),
    [
        ("10.42.3.4", 8081, True),
        ("10.42.3.4", 22, False),
        ("10.43.0.1", 8081, False),
        ("169.254.169.254", 8081, False),
        ("vnc-proxy-1.peers.svc", 8081, True),
        ("VNC-PROXY-1.peers.svc", 8081, True),
        ("a.b.peers.svc", 8081, False),
        ("peers.svc", 8081, False),
        (".peers.svc", 8081, False),
        ("evil.example", 8081, False),
        ("one", 9000, True),
        ("one", 8081, False),
        ("fd00::9", 8081, True),
    ],
)
def test_only_listed_peers_are_believed(host: str, port: int, *, believed: bool) -> None:
    peers = Peers(["10.42.0.0/16", "*.peers.svc", "one:9000", "fd00::/8"], port=8081)
    assert peers.allow(host, port) is believed


def test_without_a_list_nobody_is_believed() -> None:
    assert not Peers([], port=8081).allow("127.0.0.1", 8081)


def test_an_id_may_be_forged_but_only_within_the_list() -> None:
    forged = base64.urlsafe_b64encode(b"169.254.169.254:80").decode().rstrip("=") + ".0"
    address = owner_address(forged)
    assert address == ("169.254.169.254", 80)
    assert not Peers(["10.0.0.0/8"], port=8081).allow(*address)
