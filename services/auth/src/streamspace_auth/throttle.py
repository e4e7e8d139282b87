"""How often an address has failed to log in lately, as far as this process knows."""

import time
from datetime import timedelta

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from streamspace_auth.domain.logins import FailureLimit, address_group, too_many


class AddressThrottle:
    """Implements `ports.AddressLimit` with a moving window in memory.

    An address that is not known (a caller inside the control plane) is not limited.
    """

    def __init__(self, limit: FailureLimit) -> None:
        self._storage = MemoryStorage()
        self._limiter = MovingWindowRateLimiter(self._storage)
        self._limit = RateLimitItemPerSecond(
            limit.tries, int(limit.window.total_seconds()), namespace="login"
        )

    def check(self, address: str | None) -> None:
        if address is None:
            return
        group = address_group(address)
        if not self._limiter.test(self._limit, group):
            reset = self._limiter.get_window_stats(self._limit, group).reset_time
            raise too_many(timedelta(seconds=reset - time.time()))

    def count(self, address: str | None) -> None:
        if address is not None:
            self._limiter.hit(self._limit, address_group(address))

    def close(self) -> None:
        """End the storage's timer thread, which would hold up the end of the process."""
        self._storage.timer.cancel()
        self._storage.timer.join()
