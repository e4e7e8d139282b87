"""Viewers' streams: the agent connects to the session, then dials back to the relay.

The session first, so that one that is gone is a clean error before any tunnel exists.
The relay is reached at the address of the enrolment and nowhere else: whoever can send
this request must not be able to make the agent, which stands inside a cluster, connect
to places of their choice.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from streamspace_agent import metrics
from streamspace_agent.ports import Runtime, SessionUnreachable
from streamspace_common.contracts.clusters import OpenTunnel, TunnelOpened
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.relay.keepalive import Keepalive
from streamspace_common.relay.pump import GOING_AWAY, Leg, Pump
from streamspace_common.relay.websocket import HandshakeRefusedError, connect_websocket
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.logging import bind, get_logger
from streamspace_common.runtime.proxies import Proxies

log = get_logger(__name__)

SHORTEST_WAIT, LONGEST_WAIT = 1.0, 10.0
"""Seconds for a dial-back, whatever the deadline says: our clock may be off."""
_RESTARTING = 1012
_DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_SECURE = {"wss", "https"}

DialBack = Callable[[str, dict[str, str], float], Awaitable[Leg]]
"""Opens a WebSocket to a URL with headers, within so many seconds."""


async def dial_back(url: str, headers: dict[str, str], timeout: float) -> Leg:
    """The plain `DialBack`."""
    return await connect_websocket(url, headers, timeout=timeout)


def dialling(ca_file: Path | None, proxies: Proxies | None = None) -> DialBack:
    """A `DialBack` that trusts the file's certificates too, and takes the proxies' way."""
    trust = None
    if ca_file is not None:
        trust = ssl.create_default_context()
        trust.load_verify_locations(cafile=ca_file)
    ways = proxies or Proxies()

    async def dial(url: str, headers: dict[str, str], timeout: float) -> Leg:
        return await connect_websocket(
            url, headers, timeout=timeout, tls=trust, proxy=ways.way_to(url)
        )

    return dial


def is_allowed(dial_url: str, tunnel_url: str | None) -> bool:
    """Whether an address is the relay's: same encryption, host and port, below its path."""
    if tunnel_url is None:
        return False
    try:
        asked, relay = urlsplit(dial_url), urlsplit(tunnel_url)
        same_place = _place(asked) == _place(relay)
    except ValueError:
        return False
    base = relay.path.rstrip("/")
    below = not base or asked.path == base or asked.path.startswith(f"{base}/")
    plain = asked.username is None and asked.password is None and ".." not in asked.path
    return asked.scheme in {"ws", "wss"} and same_place and below and plain


def _place(url: SplitResult) -> tuple[bool, str | None, int]:
    port = url.port or _DEFAULT_PORTS.get(url.scheme, 0)
    return url.scheme in _SECURE, url.hostname, port


class Tunnels:
    """Opens tunnels and knows the open ones.

    Args:
        runtime: reaches the sessions.
        instance: this agent's name.
        tunnel_url: where the relay is; None refuses every tunnel.
        clock: for deadlines.
        dial: how to dial back.
    """

    def __init__(
        self,
        runtime: Runtime,
        instance: str,
        tunnel_url: str | None,
        clock: Clock,
        dial: DialBack = dial_back,
    ) -> None:
        self._runtime = runtime
        self._instance = instance
        self._tunnel_url = tunnel_url
        self._clock = clock
        self._dial = dial
        self._keepalive = Keepalive()
        self._open: dict[asyncio.Task[None], Pump] = {}

    async def run(self) -> None:
        """Look after the open tunnels; for ever."""
        await self._keepalive.run()

    async def open_tunnel(self, request: OpenTunnel) -> TunnelOpened:
        """Join a session and the relay; returns when both are connected.

        Raises:
            ProblemError: the address is not the relay's, the session does not answer,
                or the relay does not.
        """
        with bind(session_id=request.session_id, tunnel_id=request.tunnel_id):
            try:
                await self._join(request)
            except ProblemError as error:
                metrics.TUNNEL_REQUESTS.labels(result=error.problem.code).inc()
                log.warning("tunnel refused", code=error.problem.code, why=error.problem.detail)
                raise
            metrics.TUNNEL_REQUESTS.labels(result="opened").inc()
            log.info("tunnel open")
        return TunnelOpened(tunnel_id=request.tunnel_id, instance=self._instance)

    async def close_all(self) -> None:
        """End every tunnel, telling the relay to have its viewers come again."""
        open_now = dict(self._open)
        for pump in open_now.values():
            pump.close(_RESTARTING, "The agent restarts.")
        if open_now:
            await asyncio.wait(open_now, timeout=3.0)

    async def _join(self, request: OpenTunnel) -> None:
        if not is_allowed(request.dial_url, self._tunnel_url):
            raise ProblemError.of(
                Code.FORBIDDEN, "This agent dials back to the relay of its enrolment only."
            )
        try:
            session = await self._runtime.dial(request.session_id, request.port)
        except SessionUnreachable as error:
            raise ProblemError.of(Code.SESSION_UNREACHABLE, str(error)) from error
        try:
            relay = await self._dial(
                request.dial_url,
                {"Authorization": f"Bearer {request.secret}"},
                self._time_left(request),
            )
        except (HandshakeRefusedError, OSError) as error:
            session.close()
            raise ProblemError.of(
                Code.SERVICE_UNAVAILABLE, f"The relay cannot be reached: {error}."
            ) from error
        except asyncio.CancelledError:
            session.abort()
            raise
        self._pump(request, session, relay)

    def _time_left(self, request: OpenTunnel) -> float:
        left = (request.deadline - self._clock.now()).total_seconds()
        return min(max(left, SHORTEST_WAIT), LONGEST_WAIT)

    def _pump(self, request: OpenTunnel, session: Leg, relay: Leg) -> None:
        pump = Pump(session, relay)
        self._keepalive.watch(relay)
        name = f"tunnel:{request.tunnel_id}"
        task = asyncio.create_task(self._until_ended(request, pump), name=name)
        self._open[task] = pump
        metrics.TUNNELS.inc()
        task.add_done_callback(self._forget)

    async def _until_ended(self, request: OpenTunnel, pump: Pump) -> None:
        try:
            ending = await pump.wait_ended()
        except asyncio.CancelledError:
            pump.close(GOING_AWAY, "The agent ends.")
            raise
        with bind(session_id=request.session_id, tunnel_id=request.tunnel_id):
            log.info("tunnel closed", code=ending.code, reason=ending.reason)

    def _forget(self, task: asyncio.Task[None]) -> None:
        with suppress(KeyError):
            del self._open[task]
            metrics.TUNNELS.dec()
