"""Finds connections whose other end is gone without a word.

One timer for all legs, and no task per connection. A leg that shows no life for
`interval` is pinged; one that then shows none for `timeout` is cut. Any byte either
way counts as life, so a slow viewer behind a full pipe is not mistaken for a dead
one. A leg held back by backpressure is left alone: it could not hear the answer;
TCP's user timeout looks after the leg that holds it.
"""

import asyncio
from dataclasses import dataclass, field

from streamspace_common.relay.pump import Leg

PING_INTERVAL = 20.0
PONG_TIMEOUT = 20.0


@dataclass
class _Watched:
    leg: Leg
    pulse: tuple[int, ...]
    alive_at: float
    pinged_at: float | None = field(default=None)


class Keepalive:
    """Watches legs until they end. Times are in seconds."""

    def __init__(self, *, interval: float = PING_INTERVAL, timeout: float = PONG_TIMEOUT) -> None:
        self._interval = interval
        self._timeout = timeout
        self._watched: list[_Watched] = []

    def watch(self, leg: Leg) -> None:
        now = asyncio.get_running_loop().time()
        self._watched.append(_Watched(leg, leg.pulse, now))

    async def run(self) -> None:
        """Look at every leg a few times per interval; never returns."""
        pause = min(self._interval, self._timeout) / 4
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            self.look(loop.time())

    def look(self, now: float) -> None:
        """One round at the moment `now`."""
        self._watched = [each for each in self._watched if each.leg.ending is None]
        for each in self._watched:
            self._look_at(each, now)

    def _look_at(self, each: _Watched, now: float) -> None:
        pulse = each.leg.pulse
        if pulse != each.pulse or not each.leg.reading:
            each.pulse, each.alive_at, each.pinged_at = pulse, now, None
        elif each.pinged_at is not None:
            if now - each.pinged_at >= self._timeout:
                each.leg.abort("The other end stopped answering.")
        elif now - each.alive_at >= self._interval:
            each.leg.ping()
            each.pinged_at = now
            # The ping may sit in our own buffer: that is not a sign of life.
            each.pulse = each.leg.pulse
