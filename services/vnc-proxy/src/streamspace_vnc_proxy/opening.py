"""Opening a stream: ticket, admission, tunnel, join; and what a viewer is told if not.

    viewer --upgrade--> here --redeem ticket--> session service
                        here --open tunnel----> an agent of the cluster
                        here <----dial back---- that agent, connected to the session
    viewer <==========> here <================> agent <==> session

The target comes from the session service's record, never from the viewer. From the
moment of its admission a stream can be cut, also while it is being opened; a viewer
that leaves meanwhile ends the work for it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.clusters import OpenTunnel
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.requests import Admission
from streamspace_common.relay.keepalive import Keepalive
from streamspace_common.relay.pump import Ending, Leg, Pump
from streamspace_common.runtime import logging
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.tracing import Kind, past_span, span, tracing
from streamspace_vnc_proxy import metrics
from streamspace_vnc_proxy.domain import (
    Close,
    Refusal,
    refusal_of_ticket,
    refusal_of_tunnel,
    why_ended,
    why_tunnel_ended,
)
from streamspace_vnc_proxy.ports import ControlPlane
from streamspace_vnc_proxy.streams import Stream, Streams
from streamspace_vnc_proxy.tunnels import AwaitedTunnels, TooManyTunnelsError

log = logging.get_logger(__name__)

T = TypeVar("T")
Arrival = asyncio.Future[Leg]

_LAST_QUESTION_TIMEOUT = 2.0
"""Seconds a viewer whose session went silent waits to be told why."""


class _ViewerLeft(Exception):  # noqa: N818 - nothing has gone wrong
    """The viewer has gone; nobody is left to be told anything."""


class Opener:
    """Serves viewers from their upgrade to their end."""

    def __init__(
        self,
        *,
        control: ControlPlane,
        streams: Streams,
        tunnels: AwaitedTunnels[Arrival],
        keepalive: Keepalive,
        clock: Clock,
        dial_base: Callable[[ClusterId], str],
        ticket_timeout: float,
        open_timeout: float,
    ) -> None:
        self._control = control
        self._streams = streams
        self._tunnels = tunnels
        self._keepalive = keepalive
        self._clock = clock
        self._dial_base = dial_base
        self._ticket_timeout = ticket_timeout
        self._open_timeout = open_timeout

    async def serve(self, viewer: Leg, session_id: SessionId, ticket: str) -> None:
        """Open the stream and stay with it until it has ended."""
        began = self._clock.monotonic()
        with logging.bind(session_id=session_id):
            try:
                admission = await _while_there(viewer, self._redeem(session_id, ticket))
                redeemed = self._clock.monotonic() - began
                stream = self._streams.enter(admission, viewer)
            except Refusal as refusal:
                _refuse(viewer, refusal)
                return
            except _ViewerLeft:
                metrics.OPENS.labels("viewer_left").inc()
                return
            # From here on it is known which request brought the viewer here.
            with tracing(admission.traceparent), logging.bind(user_id=admission.user_id):
                try:
                    await self._serve_admitted(stream, began, redeemed)
                finally:
                    self._streams.leave(stream)

    async def _serve_admitted(self, stream: Stream, began: float, redeemed: float) -> None:
        viewer = stream.viewer
        try:
            with span(
                "open stream",
                Kind.SERVER,
                began=self._clock.monotonic() - began,
                session_id=stream.admission.session_id,
                role=stream.admission.role.value,
            ):
                past_span("redeem ticket", redeemed)
                tunnel = await _while_there(viewer, self.reach(stream.admission))
        except Refusal as refusal:
            _refuse(viewer, refusal)
            return
        except _ViewerLeft:
            metrics.OPENS.labels("viewer_left").inc()
            return
        stream.tunnel = tunnel
        for leg in (viewer, tunnel):
            self._keepalive.watch(leg)
        pump = Pump(
            viewer, tunnel, left_to_right=stream.from_viewer, explain=_last_words_for(viewer)
        )
        took = self._clock.monotonic() - began
        metrics.OPENS.labels("opened").inc()
        metrics.OPEN_DURATION.observe(took)
        log.info("stream opened", role=stream.admission.role, took_ms=round(took * 1000, 1))
        ending = await pump.wait_ended()
        if viewer.ending is None:
            await self._tell_why(stream, ending)
        log.info("stream ended", code=ending.code, reason=ending.reason, ours=ending.local)

    async def _redeem(self, session_id: SessionId, ticket: str) -> Admission:
        try:
            admission = await self._control.redeem(session_id, ticket, timeout=self._ticket_timeout)
        except ProblemError as error:
            raise refusal_of_ticket(error.problem) from error
        if admission.session_id != session_id:
            raise Refusal(Close.TICKET_REFUSED, "The ticket is for another session.")
        if admission.protocol is not Protocol.VNC:
            raise Refusal(Close.NOT_RUNNING, "This session is a web page; open it at its address.")
        return admission

    async def reach(self, admission: Admission) -> Leg:
        """Have an agent reach the session, and wait for its dial-back.

        Raises:
            Refusal: it did not come.
        """
        arrival: Arrival = asyncio.get_running_loop().create_future()
        try:
            tunnel = self._tunnels.expect(arrival)
        except TooManyTunnelsError:
            raise Refusal(
                Close.TRY_AGAIN, "Very many streams are being opened. Try again in a moment."
            ) from None
        request = OpenTunnel(
            tunnel_id=tunnel.id,
            secret=tunnel.secret,
            dial_url=f"{self._dial_base(admission.cluster_id)}/tunnels/{tunnel.id}",
            session_id=admission.session_id,
            port=admission.port,
            deadline=self._clock.now() + timedelta(seconds=self._open_timeout),
        )
        asking = asyncio.create_task(
            self._control.open_tunnel(admission.cluster_id, request, timeout=self._open_timeout)
        )
        try:
            async with asyncio.timeout(self._open_timeout):
                # The dial-back itself is the answer; a reply only matters as a refusal.
                answers: set[asyncio.Future[Any]] = {asking, arrival}
                await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
                if not arrival.done():
                    await asking
                return await arrival
        except TimeoutError:
            raise Refusal(
                Close.TOO_SLOW, f"The session did not answer within {self._open_timeout:g} s."
            ) from None
        except ProblemError as error:
            raise refusal_of_tunnel(error.problem) from error
        except asyncio.CancelledError:
            if arrival.done() and not arrival.cancelled():
                arrival.result().close(Close.NORMAL, "The viewer left.")
            raise
        finally:
            self._tunnels.forget(tunnel)
            arrival.cancel()
            await _settle(asking)

    async def _tell_why(self, stream: Stream, ending: Ending) -> None:
        """Close a viewer whose session went away, with the best reason to be had."""
        code, reason = why_tunnel_ended(ending.code, ending.reason)
        if code == Close.UNREACHABLE:
            admission = stream.admission
            try:
                now = await self._control.check(
                    admission.session_id, admission.user_id, timeout=_LAST_QUESTION_TIMEOUT
                )
            except ProblemError:
                pass  # The connection is lost, which is all that is known.
            else:
                why = why_ended(now.state)
                code, reason = (Close.ENDED, why) if why is not None else (code, reason)
        stream.viewer.close(code, reason)


def _last_words_for(viewer: Leg) -> Callable[[Leg, Ending], tuple[int, str] | None]:
    """The tunnel is told at once; for the viewer a better reason may be found first."""

    def last_words(leg: Leg, ending: Ending) -> tuple[int, str] | None:
        return (Close.NORMAL, "The viewer left.") if leg is viewer else None

    return last_words


async def _while_there(viewer: Leg, work: Coroutine[Any, Any, T]) -> T:
    """Do `work` for as long as the viewer is there.

    Raises:
        _ViewerLeft: it has gone.
    """
    task = asyncio.ensure_future(work)

    def stop(_ending: Ending) -> None:
        task.cancel()

    viewer.on_ended = stop
    if viewer.ending is not None:
        task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        if viewer.ending is None:
            raise
        raise _ViewerLeft from None
    finally:
        viewer.on_ended = None
        await _settle(task)


async def _settle(task: "asyncio.Future[Any]") -> None:
    """Cancel what is left of a task and take its outcome, whatever it is."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


def _refuse(viewer: Leg, refusal: Refusal) -> None:
    metrics.OPENS.labels(refusal.code.name.lower()).inc()
    log.info("stream refused", code=int(refusal.code), reason=refusal.reason)
    viewer.close(refusal.code, refusal.reason)
