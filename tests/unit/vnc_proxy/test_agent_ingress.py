"""What the agents' ingress makes of a request."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from streamspace_vnc_proxy import http_head
from streamspace_vnc_proxy.agent_ingress.routes import IngressRouter, readdressed
from streamspace_vnc_proxy.agent_ingress.settings import AgentIngressSettings
from streamspace_vnc_proxy.front import Answer, HandOver
from streamspace_vnc_proxy.handover import HandOvers
from streamspace_vnc_proxy.http_head import BadRequestError, RequestHead

BUS, RELAY = ("nats", 9222), ("relay", 8081)
KEY = "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", KEY)


class Noted(HandOvers):
    """Where connections went, and what was sent there first."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[bytes, str, int]] = []

    def take(
        self, transport: asyncio.Transport, data: bytes, host: str, port: int, **_watched: Any
    ) -> None:
        self.taken.append((data, host, port))


def request(path: str, *headers: str, host: str = "hub.example.org") -> RequestHead:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *headers]
    return http_head.parse(("\r\n".join(lines) + "\r\n\r\n").encode())


def handed_on(head: RequestHead, rest: bytes = b"") -> tuple[bytes, str, int]:
    noted = Noted()
    outcome = IngressRouter(BUS, RELAY, noted)(head, "203.0.113.7")
    assert isinstance(outcome, HandOver), outcome
    outcome.take(asyncio.Transport(), head.raw + rest)
    return noted.taken[0]


@pytest.mark.parametrize(
    ("path", "address"), [("/bus", BUS), ("/bus?x=1", BUS), ("/tunnels/t-1", RELAY)]
)
def test_an_upgrade_goes_where_its_path_says(path: str, address: tuple[str, int]) -> None:
    assert handed_on(request(path, *UPGRADE))[1:] == address


@pytest.mark.parametrize(
    "path", ["/", "/bus/", "/bus/x", "/streams/ada", "/tunnels", "/tunnels/a/b", "//bus", "/BUS"]
)
def test_nothing_else_is_there(path: str) -> None:
    outcome = IngressRouter(BUS, RELAY, Noted())(request(path, *UPGRADE), "203.0.113.7")
    assert isinstance(outcome, Answer)
    assert outcome.status == 404


def test_a_request_without_an_upgrade_is_told_so() -> None:
    outcome = IngressRouter(BUS, RELAY, Noted())(request("/bus"), "203.0.113.7")
    assert isinstance(outcome, Answer)
    assert outcome.status == 426
    with pytest.raises(BadRequestError):
        IngressRouter(BUS, RELAY, Noted())(request("/bus", *UPGRADE[:3]), "203.0.113.7")


def test_what_came_with_the_request_goes_on_behind_it() -> None:
    data, *_ = handed_on(request("/bus", *UPGRADE), b"early")
    assert data.endswith(b"\r\n\r\nearly")
    assert data.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    "told",
    ["X-Forwarded-For: 10.0.0.1", "X-Real-IP: 10.0.0.1", "Forwarded: for=10.0.0.1"],
)
def test_who_asks_is_not_for_a_stranger_to_say(told: str) -> None:
    sent = readdressed(request("/bus", told, *UPGRADE), BUS, "203.0.113.7")
    assert b"10.0.0.1" not in sent
    assert b"\r\nx-forwarded-for: 203.0.113.7\r\n" in sent


def test_a_sessions_own_origin_cannot_be_asked_for() -> None:
    head = request("/tunnels/t-1", "Authorization: Bearer s", *UPGRADE, host="ada.localhost")
    sent = readdressed(head, RELAY, "203.0.113.7")
    assert b"ada.localhost" not in sent
    again = http_head.parse(sent)
    assert (again.get("host"), again.target) == ("relay:8081", "/tunnels/t-1")
    assert again.get("authorization") == "Bearer s"
    assert again.wants_websocket


def test_an_address_of_ipv6_is_written_in_brackets() -> None:
    sent = readdressed(request("/bus", *UPGRADE), ("::1", 9222), "2001:db8::7")
    assert http_head.parse(sent).get("host") == "[::1]:9222"


@pytest.mark.parametrize("wrong", ["nats", "nats:0", "nats:70000", "http://nats:1", ":1"])
def test_an_address_that_is_none_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(ValidationError, match="host:port"):
        AgentIngressSettings(certificate_file="c", key_file="k", bus_address=wrong)
