"""Tickets, origins, rates and heads: what is decided before anything is opened."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamspace_common.contracts.problems import Code, Problem
from streamspace_common.contracts.sessions import Reason, SessionState
from streamspace_common.testing.clock import FakeClock
from streamspace_vnc_proxy import domain, http_head, tickets
from streamspace_vnc_proxy.domain import Close
from streamspace_vnc_proxy.http_head import BadRequestError
from streamspace_vnc_proxy.policy import UpgradeRate, client_address

TICKET = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("lines", "binary", "ticket"),
    [
        ([f"binary, streamspace.ticket.{TICKET}"], True, TICKET),
        (["binary", f"streamspace.ticket.{TICKET}"], True, TICKET),
        (["binary"], True, None),
        ([f"streamspace.ticket.{TICKET}"], False, TICKET),
        ([f"binary, streamspace.ticket.{TICKET}, streamspace.ticket.{TICKET}"], True, None),
        (["binary, streamspace.ticket."], True, None),
        (["binary, streamspace.ticket.a b"], True, None),
        ([f"binary, streamspace.ticket.{'x' * 201}"], True, None),
        ([], False, None),
    ],
)
def test_a_ticket_comes_among_the_subprotocols(
    lines: list[str], ticket: str | None, *, binary: bool
) -> None:
    assert tickets.offered(lines) == (binary, ticket)


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "welcome"),
    [
        (None, "apps.example:8081", (), True),
        ("http://apps.example", "apps.example:8081", (), True),
        ("http://APPS.example:1", "apps.example", (), True),
        ("http://apps.example.evil", "apps.example:8081", (), False),
        ("http://evil", "apps.example", (), False),
        ("null", "apps.example", (), False),
        ("", "apps.example", (), False),
        ("http://[::1]:8080", "[::1]:8081", (), True),
        ("http://[", "x", (), False),
        ("http://apps.example", None, (), False),
        ("https://a.example", "b.example", ("https://a.example/",), True),
        ("https://b.example", "b.example", ("https://a.example",), False),
        ("https://b.example", "x", ("*",), True),
    ],
)
def test_origins(
    origin: str | None, host: str | None, allowed: tuple[str, ...], *, welcome: bool
) -> None:
    assert tickets.origin_allowed(origin, host, allowed) is welcome


def test_a_burst_passes_and_a_flood_does_not(clock: FakeClock) -> None:
    rate = UpgradeRate(60, clock.monotonic)
    assert [rate.take("a") for _ in range(7)] == [True] * 6 + [False]
    assert rate.take("b")
    clock.advance(1)
    assert [rate.take("a") for _ in range(2)] == [True, False]


def test_addresses_that_rest_are_forgotten(clock: FakeClock) -> None:
    rate = UpgradeRate(60, clock.monotonic)
    for number in range(10_001):
        rate.take(str(number))
    clock.advance(60)
    rate.take("one more")
    assert len(rate._buckets) == 1


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", ["1.1.1.1"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["nonsense"], "nonsense"),
        ("", [], ""),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str, forwarded: list[str], address: str) -> None:
    assert client_address(peer, forwarded, ["10.0.0.0/8"]) == address


def test_a_head_is_read() -> None:
    head = http_head.parse(
        b"GET /streams/a?b HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n"
        b"Upgrade: WebSocket\r\nX-A: 1\r\nx-a:  2 \r\n\r\n"
    )
    assert (head.method, head.path) == ("GET", "/streams/a")
    assert head.all("x-a") == ("1", "2")
    assert head.wants_websocket


@given(st.binary(max_size=300))
def test_any_head_is_read_or_refused(raw: bytes) -> None:
    for head in (raw, b"GET / HTTP/1.1\r\nHost: x\r\n" + raw + b"\r\n\r\n"):
        try:
            http_head.parse(head)
        except BadRequestError as error:
            assert 400 <= error.status < 600


@pytest.mark.parametrize(
    "line", [b"A: b\nC: d", b" folded", b"no colon", b"na me: x", b"a: \x00", b": x", b"a:\x0b"]
)
def test_what_could_be_read_in_two_ways_is_refused(line: bytes) -> None:
    with pytest.raises(BadRequestError):
        http_head.parse(b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")


@pytest.mark.parametrize("code", list(Code))
def test_every_problem_closes_with_a_code_and_a_reason(code: Code) -> None:
    problem = Problem.of(code, "Words.")
    for refusal in (domain.refusal_of_ticket(problem), domain.refusal_of_tunnel(problem)):
        assert refusal.code in Close
        assert refusal.reason


@pytest.mark.parametrize("state", list(SessionState))
def test_exactly_the_states_without_a_desktop_end_streams(state: SessionState) -> None:
    ends = state in {
        SessionState.HIBERNATING,
        SessionState.HIBERNATED,
        SessionState.TERMINATING,
        SessionState.TERMINATED,
        SessionState.FAILED,
    }
    for reason in (None, *Reason):
        words = domain.why_ended(state, reason, "It broke.")
        assert (words is not None) is ends
        assert words is None or len(words.encode()) <= 123


def test_an_agents_own_words_reach_the_viewer_and_others_do_not() -> None:
    assert domain.why_tunnel_ended(4410, "Gone.") == (4410, "Gone.")
    assert domain.why_tunnel_ended(1012, "Restart.") == (1012, "Restart.")
    for code, reason in ((1000, "bye"), (1006, ""), (4410, ""), (1011, "stack trace")):
        assert domain.why_tunnel_ended(code, reason)[0] == Close.UNREACHABLE
