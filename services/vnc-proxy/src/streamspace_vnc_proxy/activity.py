"""Tells the control plane who watches and when somebody last really typed or clicked.

One event per session and interval, however many viewers it has, and one at once when
the last viewer has left. A report that could not be stored is made again, with what
has been seen meanwhile; the streams themselves do not depend on any of it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from streamspace_common.contracts.events import SessionActivity
from streamspace_common.contracts.identity import system_actor
from streamspace_common.contracts.ids import new_message_id
from streamspace_common.runtime.clock import Clock
from streamspace_vnc_proxy.streams import SessionStreams, Streams

ACTOR = system_actor("vnc-proxy")
ACCOUNT_INTERVAL = 5.0
"""Seconds between updates of the byte counters."""
_MAX_UNSENT = 1000
"""Last reports kept while they cannot be stored; the oldest are dropped beyond it."""

Report = Callable[[SessionActivity], Awaitable[bool]]


def describe(session: SessionStreams, clock: Clock) -> SessionActivity:
    """A session's activity as an event."""
    idle = None if session.last_input is None else clock.monotonic() - session.last_input
    return SessionActivity(
        id=str(new_message_id()),
        at=clock.now(),
        actor=ACTOR,
        session_id=session.session_id,
        owner_id=session.owner_id,
        viewers=len(session.streams),
        idle_seconds=None if idle is None else max(0.0, idle),
        bytes_to_viewers=session.bytes_to_viewers,
        bytes_from_viewers=session.bytes_from_viewers,
    )


class ActivityReporter:
    """Reports the sessions of `streams` until the process ends."""

    def __init__(self, streams: Streams, report: Report, clock: Clock, *, interval: float) -> None:
        self._streams = streams
        self._report = report
        self._clock = clock
        self._interval = interval
        self._left: list[SessionActivity] = []
        self._somebody_left = asyncio.Event()
        streams.on_left = self._on_left

    async def run(self) -> None:
        """Report in intervals, and soon after a session's last viewer left."""
        due = self._clock.monotonic() + self._interval
        pause = min(ACCOUNT_INTERVAL, self._interval)
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._somebody_left.wait()
            except TimeoutError:
                pass
            for session in self._streams.sessions:
                session.account()
            stored = await self.report_left()
            if self._clock.monotonic() >= due:
                due = self._clock.monotonic() + self._interval
                await self.report_all()
            if not stored:
                await asyncio.sleep(pause)

    async def report_all(self) -> None:
        for session in self._streams.sessions:
            event = describe(session, self._clock)
            if await self._report(event):
                session.bytes_to_viewers -= event.bytes_to_viewers
                session.bytes_from_viewers -= event.bytes_from_viewers

    async def report_left(self) -> bool:
        """Report the sessions whose last viewer left; False when some could not be."""
        self._somebody_left.clear()
        waiting, self._left = self._left, []
        while waiting:
            # The same event again: its id makes a report that did arrive harmless.
            if not await self._report(waiting[0]):
                self._left = (waiting + self._left)[-_MAX_UNSENT:]
                self._somebody_left.set()
                return False
            waiting.pop(0)
        return True

    def _on_left(self, session: SessionStreams) -> None:
        self._left.append(describe(session, self._clock))
        self._somebody_left.set()
