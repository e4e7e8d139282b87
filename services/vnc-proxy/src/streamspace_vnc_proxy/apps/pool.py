"""Tunnels to sessions' web servers, kept for the next request while they are good for it."""

import asyncio
from collections.abc import Awaitable, Callable

import h11

from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.requests import Admission
from streamspace_common.relay.keepalive import Keepalive
from streamspace_common.relay.pump import Leg
from streamspace_vnc_proxy.apps.conduit import Conduit

MAX_IDLE = 6
"""Kept per session: as many connections as a browser opens to one host."""
IDLE = 30.0
"""Seconds one is kept. Servers close idle connections too, many after a minute."""
MAX_HEAD = 64 * 1024

Reach = Callable[[Admission], Awaitable[Leg]]


class AppTunnel:
    """One HTTP/1.1 connection to a session's server, through a tunnel."""

    def __init__(self, leg: Leg) -> None:
        self.conduit = Conduit(leg)
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self.used_before = False

    @property
    def usable(self) -> bool:
        """Whether another request may go through it."""
        return (
            not self.conduit.gone
            and not self.conduit.has_unread
            and self.http.our_state is h11.IDLE
            and not self.http.trailing_data[0]
        )

    def close(self) -> None:
        self.conduit.close()


class AppTunnels:
    """Opens tunnels and keeps idle ones.

    Args:
        reach: opens a tunnel to where an admission leads.
        keepalive: finds those whose other end is gone.
    """

    def __init__(self, reach: Reach, keepalive: Keepalive) -> None:
        self._reach = reach
        self._keepalive = keepalive
        self._idle: dict[SessionId, dict[AppTunnel, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        """Idle ones."""
        return sum(map(len, self._idle.values()))

    async def take(self, admission: Admission, *, fresh: bool = False) -> AppTunnel:
        """A tunnel for one request, with `fresh` never one used before.

        Raises:
            Refusal: the session cannot be reached.
        """
        while not fresh and (tunnel := self._pop(admission.session_id)) is not None:
            if tunnel.usable:
                tunnel.used_before = True
                return tunnel
            tunnel.close()
        leg = await self._reach(admission)
        self._keepalive.watch(leg)
        return AppTunnel(leg)

    def give_back(self, session: SessionId, tunnel: AppTunnel) -> None:
        """Keep it if it can be used again; close it otherwise."""
        http = tunnel.http
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
        idle = self._idle.setdefault(session, {})
        if not tunnel.usable or len(idle) >= MAX_IDLE:
            tunnel.close()
            self._tidy(session)
            return
        loop = asyncio.get_running_loop()
        idle[tunnel] = loop.call_later(IDLE, self._drop, session, tunnel)
        tunnel.conduit.on_gone = lambda: self._drop(session, tunnel)

    def close(self, session: SessionId | None = None) -> None:
        """Close a session's idle tunnels, or all."""
        for each in [session] if session is not None else list(self._idle):
            while (tunnel := self._pop(each)) is not None:
                tunnel.close()

    def _pop(self, session: SessionId) -> AppTunnel | None:
        idle = self._idle.get(session)
        if not idle:
            return None
        tunnel, timer = idle.popitem()
        timer.cancel()
        tunnel.conduit.on_gone = lambda: None
        self._tidy(session)
        return tunnel

    def _drop(self, session: SessionId, tunnel: AppTunnel) -> None:
        timer = self._idle.get(session, {}).pop(tunnel, None)
        if timer is not None:
            timer.cancel()
        tunnel.close()
        self._tidy(session)

    def _tidy(self, session: SessionId) -> None:
        if not self._idle.get(session, True):
            del self._idle[session]
