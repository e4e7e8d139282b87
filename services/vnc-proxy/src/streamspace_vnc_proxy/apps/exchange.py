"""One request and its answer, through one tunnel.

Both bodies flow at the same time and as fast as the slower side takes them; neither has a
limit of size or time. A session may answer before it has read the request, and after an
upgrade the two connections become a pipe.
"""

import asyncio
from typing import Any

import h11

from streamspace_common.relay.pump import NORMAL, Pieces, Pump
from streamspace_vnc_proxy.apps import headers
from streamspace_vnc_proxy.apps.conduit import Conduit
from streamspace_vnc_proxy.apps.headers import Outside
from streamspace_vnc_proxy.apps.pool import AppTunnel
from streamspace_vnc_proxy.apps.visits import Visit

_NOT_FORWARDED = 100
"""`100 Continue` is the relay's own to say."""
_LATE_UPLOAD = 1.0
"""Seconds the rest of a request may take after its answer."""


class NoAnswerError(Exception):
    """The session's server ended the connection before it answered, or talked nonsense.

    `again` says that a fresh connection may do better: this one had been idle, and the
    server may just have closed it.
    """

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


class BrokenAnswerError(Exception):
    """The answer stopped in the middle; only cutting the connection says so."""


class Exchange:
    """Carries one request of a browser's connection; use once.

    Args:
        browser: the browser's connection.
        front: its HTTP, whose request's head has been read.
        tunnel: the session's connection.
        visit: whose request it is.
        outside: how the browser came.
    """

    def __init__(
        self,
        browser: Conduit,
        front: h11.Connection,
        tunnel: AppTunnel,
        visit: Visit,
        outside: Outside,
    ) -> None:
        self._browser = browser
        self._front = front
        self._tunnel = tunnel
        self._back = tunnel.http
        self._visit = visit
        self._outside = outside
        self._heard = False
        self.answered = False
        """Whether the browser has been sent any of the answer."""

    async def run(self, request: h11.Request) -> None:
        """Forward the request and its answer, or all that follows an upgrade.

        Raises:
            NoAnswerError: there is no answer; the browser was sent nothing.
            BrokenAnswerError: there is no rest of it.
            h11.RemoteProtocolError: the browser broke off, or talks nonsense.
        """
        passed = list(request.headers)
        upgrade = headers.wants_websocket(passed)
        chunked = bool(headers.values(passed, b"transfer-encoding"))
        onward = h11.Request(
            method=request.method,
            target=request.target,
            headers=headers.to_session(passed, self._outside, upgrade=upgrade, chunked=chunked),
        )
        self._tunnel.conduit.write(self._back.send(onward) or b"")
        upload = asyncio.create_task(self._upload())
        download = asyncio.create_task(self._download())
        try:
            await asyncio.wait({upload, download}, return_when=asyncio.FIRST_COMPLETED)
            if upload.done():
                upload.result()
            switched = await download
            # A server may answer a little early; then the connection need not end.
            await asyncio.wait({upload}, timeout=_LATE_UPLOAD)
        finally:
            await _settle(upload, download)
        if switched:
            await self._pipe()

    async def _upload(self) -> None:
        if self._front.their_state is not h11.SEND_BODY:
            # Its end was seen by a try that failed.
            self._tunnel.conduit.write(self._back.send(h11.EndOfMessage()) or b"")
            return
        while True:
            event = self._front.next_event()
            if event is h11.NEED_DATA:
                if self._front.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    self._browser.write(self._front.send(go_on) or b"")
                data = await self._browser.read()
                self._visit.received(len(data))
                self._front.receive_data(data)
            elif isinstance(event, h11.Data):
                await self._tunnel.conduit.send(self._back.send(h11.Data(data=bytes(event.data))))
            else:
                if isinstance(event, h11.EndOfMessage):
                    self._tunnel.conduit.write(self._back.send(h11.EndOfMessage()) or b"")
                return

    async def _download(self) -> bool:
        """Forward the answer; returns whether the connection has become another protocol's."""
        while True:
            event = await self._next_of_answer()
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == _NOT_FORWARDED:
                    continue
                switched = event.status_code == 101
                await self._send(
                    h11.InformationalResponse(
                        status_code=event.status_code,
                        headers=self._to_browser(event, upgrade=switched),
                        reason=event.reason,
                    )
                )
                if switched:
                    return True
            elif isinstance(event, h11.Response):
                await self._send(
                    h11.Response(
                        status_code=event.status_code,
                        headers=self._to_browser(event, upgrade=False),
                        reason=event.reason,
                    )
                )
            elif isinstance(event, h11.Data):
                await self._send(h11.Data(data=bytes(event.data)))
            else:
                await self._send(h11.EndOfMessage())
                return False

    def _to_browser(
        self, answer: h11.Response | h11.InformationalResponse, *, upgrade: bool
    ) -> headers.Headers:
        port = self._visit.admission.port
        return headers.to_browser(list(answer.headers), self._outside, port=port, upgrade=upgrade)

    async def _send(self, event: h11.Event) -> None:
        self.answered = True
        await self._browser.send(self._front.send(event))

    async def _next_of_answer(self) -> h11.Event:
        while True:
            try:
                event = self._back.next_event()
                if event is h11.NEED_DATA:
                    self._back.receive_data(await self._read_answer())
                    continue
            except h11.RemoteProtocolError as error:
                raise self._broken(f"The session's answer is not HTTP: {error}.") from error
            if isinstance(event, h11.Event) and not isinstance(event, h11.ConnectionClosed):
                return event
            raise self._broken("The session closed the connection without an answer.")

    async def _read_answer(self) -> bytes:
        conduit = self._tunnel.conduit
        data = await conduit.read()
        self._heard = self._heard or bool(data)
        ending = conduit.leg.ending
        if not data and not self._heard:
            raise self._broken("The session closed the connection without an answer.")
        if data or ending is None or ending.code == NORMAL:
            return data
        # Not a server that has finished, but a tunnel that broke.
        raise self._broken("The connection to the session was lost.")

    def _broken(self, reason: str) -> NoAnswerError | BrokenAnswerError:
        if self.answered:
            return BrokenAnswerError(reason)
        return NoAnswerError(reason, again=self._tunnel.used_before and not self._heard)

    async def _pipe(self) -> None:
        browser, session = self._browser, self._tunnel.conduit
        early = browser.give_up(self._front.trailing_data[0])
        late = session.give_up(self._back.trailing_data[0])
        self._visit.received(sum(map(len, early)))
        session.write_all(early)
        browser.write_all(late)

        def onward(pieces: Pieces) -> None:
            self._visit.received(sum(map(len, pieces)))
            session.leg.write_all(pieces)

        await Pump(browser.leg, session.leg, left_to_right=onward).wait_ended()


async def _settle(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel what is left of tasks and take their outcomes, whatever they are."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
