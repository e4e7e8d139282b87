"""The streams of this replica: who watches which session, and what was seen of them.

All of it is in memory and belongs to live connections; a replica that ends takes
nothing with it that anybody needs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from streamspace_common.contracts.ids import SessionId, UserId
from streamspace_common.contracts.requests import Admission
from streamspace_common.contracts.sessions import ViewerRole
from streamspace_common.relay.pump import Leg, Pieces
from streamspace_vnc_proxy import metrics
from streamspace_vnc_proxy.domain import Close, Refusal
from streamspace_vnc_proxy.rfb import ClientMessages


class Watcher(Protocol):
    """Somebody at a session: a viewer of its display, or a user of its web client."""

    @property
    def admission(self) -> Admission: ...

    def end(self, code: int, reason: str) -> None:
        """Close whatever is open."""

    def account(self) -> tuple[int, int]:
        """Bytes to and from them since this was last asked."""
        ...


SomeWatcher = TypeVar("SomeWatcher", bound=Watcher)


class Stream:
    """One viewer of one session, from its admission to its end."""

    def __init__(
        self, admission: Admission, viewer: Leg, session: "SessionStreams", now: Callable[[], float]
    ) -> None:
        self.admission = admission
        self.viewer = viewer
        self.tunnel: Leg | None = None
        self._session = session
        self._now = now
        self._messages = ClientMessages(view=admission.role is ViewerRole.VIEW)
        self._inputs = 0
        self._accounted = (0, 0)

    def from_viewer(self, pieces: Pieces) -> None:
        """Where the viewer's bytes go: through the reader of messages to the tunnel."""
        messages = self._messages
        passing = [passed for piece in pieces if (passed := messages.feed(piece))]
        if passing and self.tunnel is not None:
            self.tunnel.write_all(passing)
        if messages.inputs != self._inputs:
            self._inputs = messages.inputs
            # What a guest types goes nowhere, so it keeps nothing alive either.
            if not messages.view:
                self._session.last_input = self._now()
        if messages.failure is not None:
            self.viewer.close(Close.POLICY, messages.failure)

    def end(self, code: int, reason: str) -> None:
        self.viewer.close(code, reason)

    def account(self) -> tuple[int, int]:
        """Bytes to and from the viewer since this was last asked."""
        total = (self.tunnel.received if self.tunnel is not None else 0, self.viewer.received)
        before, self._accounted = self._accounted, total
        return total[0] - before[0], total[1] - before[1]


@dataclass
class SessionStreams:
    """One session's viewers here. Bytes are those not reported yet."""

    session_id: SessionId
    owner_id: UserId
    streams: set[Watcher] = field(default_factory=set)
    last_input: float | None = None
    bytes_to_viewers: int = 0
    bytes_from_viewers: int = 0

    def account(self) -> None:
        for stream in self.streams:
            self.add(stream.account())

    def add(self, moved: tuple[int, int]) -> None:
        self.bytes_to_viewers += moved[0]
        self.bytes_from_viewers += moved[1]
        metrics.BYTES.labels(metrics.TO_VIEWERS).inc(moved[0])
        metrics.BYTES.labels(metrics.FROM_VIEWERS).inc(moved[1])


class Streams:
    """All streams of this replica, by session.

    Args:
        monotonic: a clock in seconds.
        on_left: called with a session when its last viewer here has gone.
        per_session: viewers a session may have here.
        limit: viewers this replica may have.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        on_left: Callable[[SessionStreams], None] = lambda _session: None,
        per_session: int = 10,
        limit: int = 5000,
    ) -> None:
        self._monotonic = monotonic
        self.on_left = on_left
        self._per_session = per_session
        self._limit = limit
        self._sessions: dict[SessionId, SessionStreams] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Watcher]:
        """A snapshot: streams may end while it is walked."""
        return iter([s for session in self._sessions.values() for s in session.streams])

    @property
    def sessions(self) -> list[SessionStreams]:
        return list(self._sessions.values())

    def enter(self, admission: Admission, viewer: Leg) -> Stream:
        """Count a viewer of the display in.

        Raises:
            Refusal: the session, or this replica, has as many as it may have.
        """
        return self.count_in(
            admission, lambda session: Stream(admission, viewer, session, self._monotonic)
        )

    def count_in(
        self, admission: Admission, make: Callable[[SessionStreams], SomeWatcher]
    ) -> SomeWatcher:
        """Count somebody in, as what `make` makes of them.

        Raises:
            Refusal: the session, or this replica, has as many as it may have.
        """
        if self._count >= self._limit:
            raise Refusal(Close.TRY_AGAIN, "This relay is full. Try again in a moment.")
        session = self._sessions.get(admission.session_id)
        if session is None:
            session = SessionStreams(admission.session_id, admission.owner_id or admission.user_id)
        if len(session.streams) >= self._per_session:
            raise Refusal(
                Close.TRY_AGAIN,
                f"This session has {len(session.streams)} viewers, the most it may.",
            )
        self._sessions[admission.session_id] = session
        stream = make(session)
        session.streams.add(stream)
        self._count += 1
        metrics.STREAMS.inc()
        return stream

    def leave(self, stream: Watcher) -> None:
        """Count a viewer out, with what its connection moved."""
        session = self._sessions.get(stream.admission.session_id)
        if session is None or stream not in session.streams:
            return
        session.add(stream.account())
        session.streams.remove(stream)
        self._count -= 1
        metrics.STREAMS.dec()
        if not session.streams:
            del self._sessions[session.session_id]
            self.on_left(session)

    def cut(self, session_id: SessionId, code: int, reason: str) -> int:
        """End all streams of a session; returns how many there were."""
        session = self._sessions.get(session_id)
        if session is None:
            return 0
        streams = list(session.streams)
        for stream in streams:
            stream.end(code, reason)
        return len(streams)

    def close_all(self, code: int, reason: str) -> None:
        for stream in self:
            stream.end(code, reason)
