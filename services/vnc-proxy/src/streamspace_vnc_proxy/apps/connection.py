"""One browser's connection to the data port: request after request, each looked at anew.

    head -> which session -> the relay's own page? -> a pass for this host? -> still right?
         -> a tunnel -> forwarded (see `exchange`) -> the next head, or the end

Whatever is wrong is said by a small page. A connection whose request was not read to its
end is closed after the answer.
"""

import asyncio
import contextlib
from dataclasses import dataclass

import h11

from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.requests import Admission
from streamspace_common.contracts.sessions import ViewerRole
from streamspace_common.relay.pump import Leg
from streamspace_common.runtime import logging
from streamspace_common.runtime.clock import Clock
from streamspace_vnc_proxy.apps import headers, pages
from streamspace_vnc_proxy.apps.address import AppsDomain, is_own_page
from streamspace_vnc_proxy.apps.conduit import Conduit
from streamspace_vnc_proxy.apps.entering import MAX_FORM, OWN_PATHS, Entrance
from streamspace_vnc_proxy.apps.exchange import BrokenAnswerError, Exchange, NoAnswerError
from streamspace_vnc_proxy.apps.headers import Outside
from streamspace_vnc_proxy.apps.pages import Page
from streamspace_vnc_proxy.apps.passes import Passes
from streamspace_vnc_proxy.apps.pool import MAX_HEAD, AppTunnels
from streamspace_vnc_proxy.apps.rights import Rights
from streamspace_vnc_proxy.apps.visits import Visit, Visits
from streamspace_vnc_proxy.domain import Refusal
from streamspace_vnc_proxy.policy import UpgradeRate, client_address

log = logging.get_logger(__name__)

KEEP_ALIVE = 75.0
"""Seconds between two requests of one connection: longer than the 60 of common reverse
proxies, so that it is never we who close while a request is on its way."""
_LINGER = 1.0
"""Seconds what is left of a refused request is read: closing on it costs the answer."""
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})


@dataclass(frozen=True)
class AppServices:
    """What every connection is served with; `scheme` is how browsers come."""

    domain: AppsDomain
    scheme: str
    trusted_proxies: tuple[str, ...]
    rate: UpgradeRate
    clock: Clock
    entrance: Entrance
    passes: Passes
    rights: Rights
    visits: Visits
    tunnels: AppTunnels


class _TurnedAway(Exception):  # noqa: N818 - an answer, not an error
    def __init__(self, page: Page) -> None:
        super().__init__(page.text)
        self.page = page


class AppConnection:
    """Serves `browser`, whose address is `peer`."""

    def __init__(self, services: AppServices, browser: Leg, peer: str) -> None:
        self._services = services
        self._peer = peer
        self._browser = Conduit(browser, on_gone=self._gone)
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._task: asyncio.Task[None] | None = None
        self._method = b""

    def close(self) -> None:
        """End it, whatever is going on."""
        self._browser.close()
        self._gone()

    async def run(self, early: bytes) -> None:
        """Serve request after request; `early` is what was read of them already."""
        self._task = asyncio.current_task()
        self._http.receive_data(early)
        try:
            while not self._browser.gone and await self._serve_next():
                pass
        except h11.RemoteProtocolError as error:
            log.info("not HTTP", reason=str(error))
            await self._refuse_nonsense(error)
        except BrokenAnswerError as error:
            log.info("answer broken off", reason=str(error))
            self._browser.leg.abort()
        finally:
            self._browser.close()

    def _gone(self) -> None:
        # Nobody is left to be answered: stop waiting for the session.
        if self._task is not None and not self._task.done():
            self._task.cancel()

    async def _serve_next(self) -> bool:
        """Serve one request; returns whether another may follow."""
        request = await self._next_request()
        if request is None:
            return False
        try:
            await self._serve(request)
        except _TurnedAway as turned_away:
            await self._answer(turned_away.page)
        except Refusal as refusal:
            await self._answer(Page.of(refusal))
        except NoAnswerError as error:
            await self._answer(Page(502, str(error)))
        http = self._http
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            if http.their_state is h11.SEND_BODY:
                await self._discard_rest()
            return False
        http.start_next_cycle()
        return True

    async def _next_request(self) -> h11.Request | None:
        try:
            async with asyncio.timeout(KEEP_ALIVE):
                while True:
                    event = self._http.next_event()
                    if isinstance(event, h11.Request):
                        self._method = event.method
                        return event
                    if event is not h11.NEED_DATA:
                        return None
                    self._http.receive_data(await self._browser.read())
        except TimeoutError:
            return None

    async def _serve(self, request: h11.Request) -> None:
        passed = list(request.headers)
        [host] = [value.decode("latin-1") for value in headers.values(passed, b"host")] or [""]
        session = self._services.domain.session_of(host)
        if session is None:
            raise _TurnedAway(Page(421, "This address is not that of a session."))
        if not request.target.startswith(b"/"):
            raise _TurnedAway(Page(400, "Ask for a path."))
        if headers.values(passed, b"content-length") and headers.values(
            passed, b"transfer-encoding"
        ):
            # Who reads it how decides what the next request is.
            raise _TurnedAway(Page(400, "A request has one length."))
        with logging.bind(session_id=session):
            if request.target.startswith(OWN_PATHS.encode()):
                await self._enter(request, session)
                return
            admission = await self._admitted(passed, session)
            self._check_page(request, host)
            await self._forward(request, admission, host)

    async def _enter(self, request: h11.Request, session: SessionId) -> None:
        page = self._services.entrance.refusal(request)
        if page is not None:
            raise _TurnedAway(page)
        if not self._services.rate.take(self._client(list(request.headers))):
            raise _TurnedAway(Page(429, "Too many tries from your address. Wait a little."))
        form = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._browser.read())
            elif isinstance(event, h11.Data):
                form += event.data
                if len(form) > MAX_FORM:
                    raise _TurnedAway(Page(413, "That is more than a ticket."))
            else:
                break
        try:
            page = await self._services.entrance.enter(session, bytes(form))
        except ValueError:
            page = Page(400, "The form cannot be read.")
        await self._answer(page)

    async def _admitted(self, passed: headers.Headers, session: SessionId) -> Admission:
        services = self._services
        now = services.clock.now().timestamp()
        offered = [v for name, v in headers.cookies(passed) if name == services.passes.cookie]
        for value in offered:
            admission = services.passes.read(value, session, now)
            if admission is not None:
                if admission.role is ViewerRole.VIEW:
                    raise _TurnedAway(pages.VIEW_ONLY)
                await services.rights.confirm(admission)
                return admission
        raise _TurnedAway(pages.NOT_ADMITTED)

    def _check_page(self, request: h11.Request, host: str) -> None:
        passed = list(request.headers)
        if request.method in _SAFE and not headers.wants_websocket(passed):
            return
        origin, fetch_site = (
            headers.first(passed, name) for name in (b"origin", b"sec-fetch-site")
        )
        if not is_own_page(origin, fetch_site, host):
            raise _TurnedAway(pages.FOREIGN_PAGE)

    async def _forward(self, request: h11.Request, admission: Admission, host: str) -> None:
        visit = self._services.visits.of(admission)
        visit.begin(self, self.close)
        try:
            visit.received(len(request.target))
            outside = Outside(self._client(list(request.headers)), host, self._services.scheme)
            try:
                await self._exchange(request, visit, outside, fresh=False)
            except NoAnswerError as error:
                if not (error.again and request.method in _SAFE and self._is_bodyless(request)):
                    raise
                await self._exchange(request, visit, outside, fresh=True)
        finally:
            visit.finish(self)

    async def _exchange(
        self, request: h11.Request, visit: Visit, outside: Outside, *, fresh: bool
    ) -> None:
        tunnels = self._services.tunnels
        tunnel = await tunnels.take(visit.admission, fresh=fresh)
        visit.follow(tunnel.conduit.leg)
        whole = False
        try:
            await Exchange(self._browser, self._http, tunnel, visit, outside).run(request)
            whole = True
        finally:
            visit.unfollow(tunnel.conduit.leg)
            if whole:
                tunnels.give_back(visit.admission.session_id, tunnel)
            else:
                tunnel.close()

    @staticmethod
    def _is_bodyless(request: h11.Request) -> bool:
        passed = list(request.headers)
        length = headers.values(passed, b"content-length")
        return not headers.values(passed, b"transfer-encoding") and length in ([], [b"0"])

    def _client(self, passed: headers.Headers) -> str:
        forwarded = [v.decode("latin-1") for v in headers.values(passed, b"x-forwarded-for")]
        return client_address(self._peer, forwarded, self._services.trusted_proxies)

    async def _answer(self, page: Page) -> None:
        log.info("page shown", status=page.status, reason=page.text)
        self._skip_what_came()
        lines = page.all_headers
        if self._http.their_state is h11.SEND_BODY:
            lines.append((b"Connection", b"close"))
        answer = h11.Response(status_code=page.status, headers=lines, reason=page.phrase)
        data = self._http.send(answer) or b""
        if self._method != b"HEAD":
            data += self._http.send(h11.Data(data=page.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        await self._browser.send(data)

    async def _refuse_nonsense(self, error: h11.RemoteProtocolError) -> None:
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            status = error.error_status_hint
            await self._answer(Page(status, "Your browser sent what is not HTTP."))
            await self._discard_rest()

    def _skip_what_came(self) -> None:
        """Let a refused request that is here to its end not cost the connection."""
        while self._http.their_state is h11.SEND_BODY:
            if not isinstance(self._http.next_event(), h11.Data | h11.EndOfMessage):
                return

    async def _discard_rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await self._browser.read():
                    pass
