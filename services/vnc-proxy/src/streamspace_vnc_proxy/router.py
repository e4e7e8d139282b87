"""Which connection is what: a viewer, an agent's dial-back, or nothing of ours.

| request | becomes |
|---|---|
| `GET /streams/<session>` with an upgrade | a viewer |
| `GET /tunnels/<tunnel>` with an upgrade | the tunnel awaited, or a pipe to its replica |
| anything for a host `<session>.<apps domain>` | that session's own (see `apps`) |
| anything else | a small HTTP answer |
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamspace_common.contracts.ids import LABEL_PATTERN, SESSION_ID_LENGTH, SessionId
from streamspace_common.contracts.problems import Code
from streamspace_common.relay.pump import EARLY_LIMIT
from streamspace_common.runtime.logging import get_logger
from streamspace_vnc_proxy import tickets
from streamspace_vnc_proxy.apps.port import Apps
from streamspace_vnc_proxy.domain import Close
from streamspace_vnc_proxy.front import Answer, HandOver, Outcome, ServedLeg, Upgrade
from streamspace_vnc_proxy.handover import MARK, HandOvers, marked
from streamspace_vnc_proxy.http_head import RequestHead, check_upgrade
from streamspace_vnc_proxy.opening import Arrival, Opener
from streamspace_vnc_proxy.policy import UpgradeRate, client_address
from streamspace_vnc_proxy.tasks import Tasks
from streamspace_vnc_proxy.tunnels import (
    AwaitedTunnels,
    Peers,
    TunnelRefusedError,
    owner_address,
)

log = get_logger(__name__)

_SESSION = re.compile(LABEL_PATTERN)
_VIEWER_EARLY_LIMIT = 4 * 1024
"""Bytes. An RFB client waits for the server to speak first, so more is no viewer."""


@dataclass(frozen=True)
class Gate:
    """What the router lets in."""

    allowed_origins: Sequence[str]
    trusted_proxies: Sequence[str]
    peers: Peers
    rate: UpgradeRate


class Router:
    """`front.Route` of the data port."""

    def __init__(
        self,
        *,
        gate: Gate,
        opener: Opener,
        tunnels: AwaitedTunnels[Arrival],
        hand_overs: HandOvers,
        tasks: Tasks,
        apps: Apps,
    ) -> None:
        self._gate = gate
        self._opener = opener
        self._tunnels = tunnels
        self._hand_overs = hand_overs
        self._tasks = tasks
        self._apps = apps

    def __call__(self, head: RequestHead, peer: str) -> Outcome:
        # First: nothing of the relay's own may be reached at a session's origin.
        app = self._apps.outcome(head, peer)
        if app is not None:
            return app
        match head.path.split("/"):
            case ["", "streams", session]:
                return self._upgrade(head, lambda: self._viewer(head, session, peer))
            case ["", "tunnels", tunnel]:
                return self._upgrade(head, lambda: self._tunnel(head, tunnel))
            case _:
                return Answer.problem(
                    404, "Streams are at /streams/<session>; nothing else is here.", Code.NOT_FOUND
                )

    def _upgrade(self, head: RequestHead, then: Callable[[], Outcome]) -> Outcome:
        if not head.wants_websocket:
            return Answer.problem(426, "Come with a WebSocket upgrade.")
        check_upgrade(head)
        return then()

    def _viewer(self, head: RequestHead, session: str, peer: str) -> Outcome:
        binary, ticket = tickets.offered(head.all("sec-websocket-protocol"))
        if not binary:
            # The close frame that could say more would never be seen: a browser ends
            # a WebSocket for which none of its subprotocols was chosen.
            return Answer.problem(400, f"Offer the subprotocol `{tickets.SUBPROTOCOL}`.")
        address = client_address(peer, head.all("x-forwarded-for"), self._gate.trusted_proxies)
        if not self._gate.rate.take(address):
            log.warning("too many upgrades", address=address)
            return _refused(Close.TRY_AGAIN, "Too many streams from your address. Wait a little.")
        if not tickets.origin_allowed(
            head.get("origin"), head.get("host"), self._gate.allowed_origins
        ):
            log.warning("foreign origin", address=address, origin=head.get("origin"))
            return _refused(Close.WRONG_ORIGIN, "Pages of this origin may not open streams here.")
        if len(session) > SESSION_ID_LENGTH or not _SESSION.match(session):
            return _refused(Close.NO_SESSION, "There is no such session.")
        if ticket is None:
            return _refused(Close.TICKET_REFUSED, "A ticket is needed.")
        return self._serve(SessionId(session), ticket)

    def _serve(self, session: SessionId, ticket: str) -> Upgrade:
        def connected(leg: ServedLeg) -> None:
            self._tasks.spawn(
                f"viewer of {session}",
                self._opener.serve(leg, session, ticket),
                on_crash=lambda: leg.close(Close.INTERNAL, "Something went wrong on our side."),
            )

        leg = ServedLeg(connected, early_limit=_VIEWER_EARLY_LIMIT)
        return Upgrade(leg, tickets.SUBPROTOCOL)

    def _tunnel(self, head: RequestHead, tunnel_id: str) -> Outcome:
        if not self._tunnels.is_mine(tunnel_id):
            return self._stray(head, tunnel_id)
        scheme, _, secret = (head.get("authorization") or "").partition(" ")
        try:
            arrival = self._tunnels.claim(tunnel_id, secret if scheme == "Bearer" else None)
        except TunnelRefusedError as error:
            log.warning("tunnel refused", status=error.status, reason=error.detail)
            return Answer.problem(error.status, error.detail, Code.TICKET_REFUSED)

        def connected(leg: ServedLeg) -> None:
            if arrival.done():
                leg.close(Close.TOO_SLOW, "Nobody waits for this tunnel any more.")
            else:
                arrival.set_result(leg)

        return Upgrade(ServedLeg(connected, early_limit=EARLY_LIMIT))

    def _stray(self, head: RequestHead, tunnel_id: str) -> Outcome:
        address = owner_address(tunnel_id)
        if address is None or head.get(MARK) is not None or not self._gate.peers.allow(*address):
            return Answer.problem(404, "Nobody waits for this tunnel.", Code.NOT_FOUND)
        host, port = address
        return HandOver(
            lambda transport, data: self._hand_overs.take(transport, marked(data), host, port)
        )


def _refused(code: Close, reason: str) -> Upgrade:
    """Accept the upgrade, only so that the browser hears why it is closed."""
    leg = ServedLeg(lambda leg: leg.close(code, reason), early_limit=1)
    return Upgrade(leg, tickets.SUBPROTOCOL)
