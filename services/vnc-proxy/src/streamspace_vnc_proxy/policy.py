"""Who may try how often, and whose word on a client's address is believed."""

import ipaddress
from collections.abc import Callable, Iterable

_FORGET_AFTER = 10_000
"""Addresses remembered before the idle ones are dropped."""


class UpgradeRate:
    """A token bucket per client address: a steady rate, and a burst of a tenth of it."""

    def __init__(self, per_minute: int, monotonic: Callable[[], float]) -> None:
        self._per_second = per_minute / 60
        self._burst = max(5.0, per_minute / 10)
        self._monotonic = monotonic
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, address: str) -> bool:
        """Whether `address` may open one more."""
        now = self._monotonic()
        if len(self._buckets) > _FORGET_AFTER:
            self._drop_full(now)
        left = self._left(address, now)
        if left < 1:
            return False
        self._buckets[address] = (left - 1, now)
        return True

    def _left(self, address: str, now: float) -> float:
        left, at = self._buckets.get(address, (self._burst, now))
        return min(self._burst, left + (now - at) * self._per_second)

    def _drop_full(self, now: float) -> None:
        for address in [a for a in self._buckets if self._left(a, now) >= self._burst]:
            del self._buckets[address]


def client_address(peer: str, forwarded: Iterable[str], trusted: Iterable[str]) -> str:
    """The client behind our own reverse proxies.

    X-Forwarded-For is read from its end, the part that trusted proxies wrote, and only
    when the connection itself comes from one.
    """
    networks = [ipaddress.ip_network(each, strict=False) for each in trusted]

    def ours(address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in networks)

    hops = [hop.strip() for line in forwarded for hop in line.split(",") if hop.strip()]
    address = peer
    while hops and ours(address):
        address = hops.pop()
    return address
