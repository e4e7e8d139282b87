"""Which connection leads where, and what becomes of its request on the way.

| request | leads to |
|---|---|
| `GET /bus` with an upgrade | NATS, which asks for a credential |
| `GET /tunnels/<tunnel>` with an upgrade | the relay, which asks for the tunnel's secret |
| anything else | a small HTTP answer |
"""

from streamspace_common.contracts.problems import Code
from streamspace_vnc_proxy.agent_ingress import metrics
from streamspace_vnc_proxy.front import Answer, HandOver, Outcome
from streamspace_vnc_proxy.handover import HandOvers
from streamspace_vnc_proxy.http_head import RequestHead, check_upgrade

Address = tuple[str, int]

_OURS = frozenset({"host", "x-forwarded-for", "x-real-ip", "forwarded"})
"""Headers that say where a request goes and where it is from: ours to say, not a stranger's."""


class IngressRouter:
    """`front.Route` of the ingress.

    Args:
        bus: host and port of NATS' listener for WebSockets.
        relay: host and port of the relay's data port.
        hand_overs: carries the connections on.
    """

    def __init__(self, bus: Address, relay: Address, hand_overs: HandOvers) -> None:
        self._bus = bus
        self._relay = relay
        self._hand_overs = hand_overs

    def __call__(self, head: RequestHead, peer: str) -> Outcome:
        match head.path.split("/"):
            case ["", "bus"]:
                to, address = metrics.BUS, self._bus
            case ["", "tunnels", _]:
                to, address = metrics.TUNNELS, self._relay
            case _:
                metrics.REFUSED.labels(metrics.UNKNOWN).inc()
                return Answer.problem(
                    404, "Agents connect here, to /bus and /tunnels/<tunnel>.", Code.NOT_FOUND
                )
        if not head.wants_websocket:
            metrics.REFUSED.labels(metrics.NO_UPGRADE).inc()
            return Answer.problem(426, "Come with a WebSocket upgrade.")
        check_upgrade(head)
        beginning = readdressed(head, address, peer)
        return HandOver(
            lambda transport, data: self._hand_overs.take(
                transport,
                beginning + data[len(head.raw) :],
                *address,
                while_open=metrics.CONNECTIONS.labels(to).track_inprogress(),
                on_unreachable=metrics.REFUSED.labels(metrics.UNREACHABLE).inc,
            )
        )


def readdressed(head: RequestHead, address: Address, peer: str) -> bytes:
    """A request's head as it goes on: to `address`, and from `peer`.

    The relay tells sessions' own origins by the host of a request, and none of those may be
    asked for here.
    """
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    lines = [
        f"{head.method} {head.target} HTTP/1.1",
        f"host: {host}:{address[1]}",
        f"x-forwarded-for: {peer}",
        *(f"{name}: {value}" for name, value in head.headers if name not in _OURS),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
