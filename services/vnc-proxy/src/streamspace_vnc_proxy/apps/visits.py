"""Who uses which session's web client: visits, which the control plane sees as viewers.

A visit is one user at one session, through however many connections, from the first
request until a while after the last one: a page that only shows something has no
connection, yet somebody looks at it. What a browser sends counts as input, since nobody
but the application could tell a keystroke from a question asked every second.
"""

import asyncio
from collections.abc import Callable

from streamspace_common.contracts.ids import SessionId, UserId
from streamspace_common.contracts.requests import Admission
from streamspace_common.relay.pump import Leg
from streamspace_vnc_proxy.domain import Close, Refusal
from streamspace_vnc_proxy.streams import SessionStreams, Streams

LINGER = 90.0
"""Seconds a visit lasts after its last request. Longer than a right is believed in (see
`rights`), so that an ended right is noticed while there is somebody to send away."""
_LOOK_EVERY = 5.0
MAX_AT_ONCE = 100
"""Requests and sockets of one visit at the same time; browsers stay far below."""


class Visit:
    """One user at one session."""

    def __init__(
        self,
        admission: Admission,
        session: SessionStreams,
        monotonic: Callable[[], float],
        on_end: Callable[["Visit"], None],
    ) -> None:
        self.admission = admission
        self.last_used = monotonic()
        self._session = session
        self._monotonic = monotonic
        self._on_end = on_end
        self._open: dict[object, Callable[[], None]] = {}
        self._tunnels: dict[Leg, int] = {}
        self._received = 0
        self._sent = 0

    @property
    def busy(self) -> bool:
        return bool(self._open)

    def begin(self, what: object, close: Callable[[], None]) -> None:
        """Something is going on; `close` ends it when the visit has to end.

        Raises:
            Refusal: too much goes on at once.
        """
        if len(self._open) >= MAX_AT_ONCE:
            raise Refusal(Close.TRY_AGAIN, "This session is asked for too much at once.")
        self._open[what] = close

    def finish(self, what: object) -> None:
        self._open.pop(what, None)
        self.last_used = self._monotonic()

    def follow(self, tunnel: Leg) -> None:
        """Count what comes through this tunnel as sent to the user."""
        self._tunnels[tunnel] = tunnel.received

    def unfollow(self, tunnel: Leg) -> None:
        before = self._tunnels.pop(tunnel, None)
        if before is not None:
            self._sent += tunnel.received - before

    def received(self, size: int) -> None:
        """The browser sent so many bytes."""
        self._received += size
        self._session.last_input = self.last_used = self._monotonic()

    def end(self, code: int, reason: str) -> None:
        for close in list(self._open.values()):
            close()
        self._on_end(self)

    def account(self) -> tuple[int, int]:
        for tunnel, before in self._tunnels.items():
            self._sent += tunnel.received - before
            self._tunnels[tunnel] = tunnel.received
        sent, self._sent = self._sent, 0
        received, self._received = self._received, 0
        return sent, received


class Visits:
    """All visits of this replica.

    Args:
        streams: where they are counted in.
        monotonic: a clock in seconds.
        linger: seconds a visit lasts after its last request.
        on_end: called with a visit that was ended, not with one that faded away.
    """

    def __init__(
        self,
        streams: Streams,
        monotonic: Callable[[], float],
        *,
        linger: float = LINGER,
        on_end: Callable[[Visit], None] = lambda _visit: None,
    ) -> None:
        self._streams = streams
        self._monotonic = monotonic
        self._linger = linger
        self.on_end = on_end
        self._visits: dict[tuple[SessionId, UserId], Visit] = {}

    def __len__(self) -> int:
        return len(self._visits)

    def of(self, admission: Admission) -> Visit:
        """The user's visit, a new one if there is none.

        Raises:
            Refusal: the session, or this replica, has as many as it may have.
        """
        key = admission.session_id, admission.user_id
        visit = self._visits.get(key)
        if visit is None:
            visit = self._streams.count_in(
                admission,
                lambda session: Visit(admission, session, self._monotonic, self._ended),
            )
            self._visits[key] = visit
        return visit

    async def run(self) -> None:
        """Let visits fade away; for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self.look()

    def look(self) -> None:
        """One round."""
        oldest = self._monotonic() - self._linger
        for visit in list(self._visits.values()):
            if not visit.busy and visit.last_used < oldest:
                self._leave(visit)

    def _ended(self, visit: Visit) -> None:
        self._leave(visit)
        self.on_end(visit)

    def _leave(self, visit: Visit) -> None:
        key = visit.admission.session_id, visit.admission.user_id
        if self._visits.get(key) is visit:
            del self._visits[key]
            self._streams.leave(visit)
