"""How fast an agent asks: quickly in a burst, slowly in the long run."""

import asyncio
import time


class RateLimit:
    """At most `qps` requests a second in the long run, `burst` of them at once."""

    def __init__(self, qps: float, burst: int) -> None:
        self._qps = qps
        self._burst = float(burst)
        self._left = self._burst
        self._at = time.monotonic()

    async def take(self) -> None:
        """Wait for a turn; turns are given in the order they are asked for."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._qps) - 1
        self._at = now
        if self._left < 0:
            await asyncio.sleep(-self._left / self._qps)
