"""Tunnels that are awaited: who may dial back, once, for a few seconds.

The agent proves with a one-time secret that it was asked; the tunnel's id only finds
the place. The id also names the replica that waits, so that a replica behind the same
address can hand a stray dial-back over to it. That name is an address taken from a
request, so it is used only when the operator's `peer_hosts` allow it.
"""

import base64
import binascii
import hmac
import ipaddress
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Waiter = TypeVar("Waiter")

TTL = 10.0
"""Seconds an agent has to dial back."""
_HERE = "here"


class TunnelRefusedError(Exception):
    """A dial-back is not let in; `status` is for the agent's HTTP answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class TooManyTunnelsError(Exception):
    """More streams are being opened than the limit allows."""


@dataclass(frozen=True)
class AwaitedTunnel(Generic[Waiter]):
    id: str
    secret: str = field(repr=False)
    expires_at: float
    waiter: Waiter


class AwaitedTunnels(Generic[Waiter]):
    """All tunnels this replica waits for, in memory: they live for seconds.

    Args:
        monotonic: a clock in seconds.
        replica: `host:port` at which peers reach this replica, or None for the only one.
        limit: how many may be awaited at the same time.
        ttl: seconds one is awaited.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        replica: str | None = None,
        limit: int = 500,
        ttl: float = TTL,
    ) -> None:
        self._monotonic = monotonic
        self._owner = _encode(replica) if replica is not None else _HERE
        self._limit = limit
        self._ttl = ttl
        self._awaited: dict[str, AwaitedTunnel[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._awaited)

    def expect(self, waiter: Waiter) -> AwaitedTunnel[Waiter]:
        """Wait for a new tunnel.

        Raises:
            TooManyTunnelsError: the limit is reached.
        """
        if len(self._awaited) >= self._limit:
            raise TooManyTunnelsError
        tunnel = AwaitedTunnel(
            id=f"{self._owner}.{secrets.token_hex(16)}",
            secret=secrets.token_urlsafe(32),
            expires_at=self._monotonic() + self._ttl,
            waiter=waiter,
        )
        self._awaited[tunnel.id] = tunnel
        return tunnel

    def forget(self, tunnel: AwaitedTunnel[Waiter]) -> None:
        """Wait no longer; does nothing for one that has come."""
        self._awaited.pop(tunnel.id, None)

    def claim(self, tunnel_id: str, secret: str | None) -> Waiter:
        """Let a dial-back in, once.

        A wrong secret leaves the tunnel awaited: a stranger must not be able to
        spoil it for the agent.

        Raises:
            TunnelRefusedError: unknown, used, expired, or not the right secret.
        """
        tunnel = self._awaited.get(tunnel_id)
        # The comparison takes its time also where there is nothing to compare with.
        expected = tunnel.secret if tunnel is not None else secrets.token_urlsafe(32)
        matches = hmac.compare_digest(expected.encode(), (secret or "").encode())
        if tunnel is None:
            raise TunnelRefusedError(404, "Nobody waits for this tunnel (any more).")
        if not matches:
            raise TunnelRefusedError(401, "This is not the tunnel's secret.")
        del self._awaited[tunnel_id]
        if self._monotonic() >= tunnel.expires_at:
            raise TunnelRefusedError(410, "The tunnel was dialled too late.")
        return tunnel.waiter

    def is_mine(self, tunnel_id: str) -> bool:
        return tunnel_id.partition(".")[0] == self._owner


def owner_address(tunnel_id: str) -> tuple[str, int] | None:
    """The replica a tunnel's id names, as host and port; None if it names none."""
    owner, dot, _ = tunnel_id.partition(".")
    if not dot or owner == _HERE:
        return None
    try:
        host, _, port = (
            base64.urlsafe_b64decode(owner + "=" * (-len(owner) % 4)).decode().rpartition(":")
        )
        return host.strip("[]"), int(port)
    except (binascii.Error, ValueError):
        return None


def _encode(replica: str) -> str:
    return base64.urlsafe_b64encode(replica.encode()).decode().rstrip("=")


class Peers:
    """Which replica addresses are believed.

    Args:
        patterns: host names, names with a leading `*.`, addresses or networks, each
            with `:port` or meaning `port`.
        port: the port replicas listen on.
    """

    def __init__(self, patterns: Iterable[str], *, port: int) -> None:
        self._names: list[tuple[str, int]] = []
        self._networks: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, int]] = []
        for pattern in patterns:
            host, wanted = _split_port(pattern, port)
            try:
                self._networks.append((ipaddress.ip_network(host, strict=False), wanted))
            except ValueError:
                self._names.append((host.lower(), wanted))

    def allow(self, host: str, port: int) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            name = host.lower()
            return any(port == wanted and _fits(name, known) for known, wanted in self._names)
        return any(port == wanted and address in network for network, wanted in self._networks)


def _split_port(pattern: str, port: int) -> tuple[str, int]:
    host, colon, number = pattern.rpartition(":")
    # A bare IPv6 address has colons of its own.
    if colon and number.isdigit() and (":" not in host or host.endswith("]")):
        return host.strip("[]"), int(number)
    return pattern.strip("[]"), port


def _fits(name: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        first, dot, rest = name.partition(".")
        return bool(first and dot) and rest == pattern[2:]
    return name == pattern
