"""Addresses, passes, headers and pages of sessions with a web client of their own."""

import asyncio
import base64
import json
from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.ids import ClusterId, SessionId, UserId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import Admission, AdmissionState
from streamspace_common.contracts.sessions import SessionState, ViewerRole
from streamspace_common.relay.pump import Leg, Pieces
from streamspace_common.testing.clock import FakeClock
from streamspace_vnc_proxy.apps import headers
from streamspace_vnc_proxy.apps.address import AppsDomain, is_own_page
from streamspace_vnc_proxy.apps.conduit import Conduit
from streamspace_vnc_proxy.apps.entering import _local
from streamspace_vnc_proxy.apps.exchange import Exchange
from streamspace_vnc_proxy.apps.headers import Outside
from streamspace_vnc_proxy.apps.pages import Page
from streamspace_vnc_proxy.apps.passes import Passes
from streamspace_vnc_proxy.apps.pool import AppTunnel
from streamspace_vnc_proxy.apps.rights import Rights
from streamspace_vnc_proxy.apps.visits import Visits
from streamspace_vnc_proxy.domain import Close, Refusal
from streamspace_vnc_proxy.streams import Streams

SESSION = SessionId("ada-files-0badcafe")
OUTSIDE = Outside("203.0.113.9", f"{SESSION}.localhost:8081", "http")
ADMISSION = Admission(
    session_id=SESSION,
    user_id=UserId("usr-" + "a" * 32),
    username="ada",
    role=ViewerRole.CONTROL,
    cluster_id=ClusterId("lab"),
    protocol=Protocol.HTTP,
    port=3000,
)


@pytest.mark.parametrize(
    ("host", "session"),
    [
        ("ada-files-0badcafe.localhost:8081", SESSION),
        ("ADA-files-0badcafe.LOCALHOST", SESSION),
        ("ada-files-0badcafe.localhost.evil.example", None),
        ("x.ada-files-0badcafe.localhost", None),
        ("localhost:8081", None),
        ("relay.localhost", None),
        ("-files-0badcafe.localhost", None),
        ("127.0.0.1:8081", None),
        ("[::1]:8081", None),
        ("[", None),
        ("", None),
        (None, None),
    ],
)
def test_a_host_names_a_session_or_nothing(host: str | None, session: str | None) -> None:
    assert AppsDomain("localhost").session_of(host) == session


@pytest.mark.parametrize(
    ("domain", "origin", "allowed", "welcome"),
    [
        ("localhost", None, (), True),
        ("localhost", "http://localhost:8080", (), True),
        ("localhost", "http://127.0.0.1:8080", (), True),
        ("localhost", "http://[::1]:8080", (), True),
        ("localhost", f"http://{SESSION}.localhost:8081", (), False),
        ("localhost", "http://evil.example", (), False),
        ("localhost", "null", (), False),
        ("apps.space.example", "https://space.example", (), True),
        ("apps.space.example", "https://evilspace.example", (), False),
        ("apps.space.example", "http://127.0.0.1", (), False),
        ("apps.example", "https://a.example", ("https://a.example/",), True),
        ("localhost", "http://localhost", ("https://a.example",), False),
    ],
)
def test_only_streamspace_pages_bring_tickets(
    domain: str, origin: str | None, allowed: tuple[str, ...], *, welcome: bool
) -> None:
    assert AppsDomain(domain).may_enter(origin, allowed) is welcome


@pytest.mark.parametrize(
    ("origin", "site", "own"),
    [
        (None, None, True),
        (f"http://{OUTSIDE.host}", None, True),
        ("http://eve-files-0badcafe.localhost:8081", None, False),
        ("null", None, False),
        ("null", "same-origin", True),
        (f"http://{OUTSIDE.host}", "same-site", False),
        (None, "cross-site", False),
    ],
)
def test_a_page_of_another_host_is_told_apart(
    origin: str | None, site: str | None, *, own: bool
) -> None:
    assert is_own_page(origin, site, OUTSIDE.host) is own


def cookie_of(passes: Passes, now: float = 0) -> str:
    return passes.issue(ADMISSION, now).partition("=")[2].partition(";")[0]


def test_a_pass_says_who_was_admitted_until_it_expires() -> None:
    passes = Passes(b"k" * 32, lifetime=60, secure=False)
    value = cookie_of(passes)
    assert passes.read(value, SESSION, 59) == ADMISSION
    assert passes.read(value, SESSION, 60) is None
    assert passes.read(value, SessionId("eve-files-0badcafe"), 0) is None
    assert Passes(b"x" * 32, lifetime=60, secure=False).read(value, SESSION, 0) is None


def test_a_secure_pass_is_bound_to_its_host_by_name() -> None:
    line = Passes(b"k" * 32, lifetime=60, secure=True).issue(ADMISSION, 0)
    assert line.startswith("__Host-streamspace=")
    assert line.endswith("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure")


def test_a_pass_that_was_changed_is_worth_nothing() -> None:
    passes = Passes(b"k" * 32, lifetime=60, secure=False)
    payload, _, signature = cookie_of(passes).partition(".")
    said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    said["expires"] = 10**12
    forged = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    assert passes.read(f"{forged}.{signature}", SESSION, 0) is None


@given(st.text(max_size=200))
def test_any_cookie_is_read_or_refused(text: str) -> None:
    assert Passes(b"k" * 32, lifetime=60, secure=False).read(text, SESSION, 0) is None


def test_control_plane_cookies_never_reach_the_session() -> None:
    lines = [
        (b"Cookie", b"a=1; streamspace_refresh=x; __Host-streamspace=y"),
        (b"cookie", b"STREAMSPACE_session=z; b=2;"),
    ]
    passed = headers.to_session(lines, OUTSIDE, upgrade=False, chunked=False)
    assert headers.values(passed, b"cookie") == [b"a=1; b=2"]


@given(
    st.lists(st.tuples(st.sampled_from([b"Cookie", b"Connection", b"X"]), st.binary(max_size=80)))
)
def test_no_header_makes_an_own_cookie_pass(lines: list[tuple[bytes, bytes]]) -> None:
    secret = (b"Cookie", b"x=1; streamspace_session=secret")
    passed = headers.to_session([*lines, secret], OUTSIDE, upgrade=False, chunked=False)
    assert all(b"streamspace_session=secret" not in value for _, value in passed)


def test_a_message_keeps_its_length_whatever_connection_names() -> None:
    lines = [(b"Host", b"x"), (b"Content-Length", b"3"), (b"Connection", b"content-length, host")]
    passed = headers.to_session(lines, OUTSIDE, upgrade=False, chunked=False)
    assert headers.values(passed, b"content-length") == [b"3"]
    assert headers.values(passed, b"host") == [b"x"]


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        (b"/lab", b"/lab"),
        (b"http://localhost:3000/lab?a=1#b", b"/lab?a=1#b"),
        (b"https://ada-files-0badcafe.localhost:8081//evil.example", b"/evil.example"),
        (b"http://ada-files-0badcafe.localhost:3000/x", b"/x"),
        (b"http://localhost:4000/", b"http://localhost:4000/"),
        (b"https://elsewhere.example/x", b"https://elsewhere.example/x"),
        (b"http://[", b"http://["),
    ],
)
def test_a_redirect_to_the_session_itself_stays_at_its_host(location: bytes, seen: bytes) -> None:
    lines = [(b"Location", location)]
    passed = headers.to_browser(lines, OUTSIDE, port=3000, upgrade=False)
    assert headers.values(passed, b"location") == [seen]


@pytest.mark.parametrize(
    ("path", "local"),
    [("/", "/"), ("/lab?x=1", "/lab?x=1"), ("//evil.example", "/evil.example"), ("/\\e", "/e")],
)
def test_a_template_leads_to_no_other_host(path: str, local: str) -> None:
    assert _local(path) == local


def test_words_on_pages_are_text() -> None:
    page = Page(502, "<script>alert(1)</script>")
    assert b"<script>" not in page.body


class Line(Leg):
    """A leg without a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.paused = False

    def write_all(self, pieces: Pieces) -> None:
        for piece in pieces:
            self.sent += piece

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def arrive(self, data: bytes) -> None:
        self._deliver((data,), len(data))


async def test_a_conduit_holds_its_leg_back_until_it_was_read() -> None:
    line = Line()
    conduit = Conduit(line)
    for _ in range(4):
        line.arrive(bytes(65536))
    assert line.paused
    assert len(await conduit.read()) == 65536
    assert not line.paused


async def test_a_writer_waits_for_the_slower_side() -> None:
    line = Line()
    conduit = Conduit(line)
    Leg.pause_writing(line)
    sending = asyncio.create_task(conduit.send(b"data"))
    await asyncio.sleep(0)
    assert not sending.done()
    Leg.resume_writing(line)
    await sending
    assert line.sent == b"data"


class Control:
    def __init__(self) -> None:
        self.asked = 0
        self.answer: AdmissionState | ProblemError = AdmissionState(
            allowed=True, state=SessionState.RUNNING
        )

    async def check(self, session: str, user: str, *, timeout: float) -> AdmissionState:
        self.asked += 1
        if isinstance(self.answer, ProblemError):
            raise self.answer
        return self.answer


async def test_a_right_is_asked_about_once_a_minute(clock: FakeClock) -> None:
    control = Control()
    rights = Rights(control, clock.monotonic, interval=60)  # type: ignore[arg-type]
    await asyncio.gather(*(rights.confirm(ADMISSION) for _ in range(5)))
    assert control.asked == 1
    clock.advance(60)
    control.answer = ProblemError.of(Code.SERVICE_UNAVAILABLE, "Away.")
    await rights.confirm(ADMISSION)
    clock.advance(60)
    control.answer = AdmissionState(allowed=False, state=SessionState.HIBERNATED)
    with pytest.raises(Refusal) as refused:
        await rights.confirm(ADMISSION)
    assert refused.value.code is Close.ENDED


async def test_nobody_is_let_in_unasked(clock: FakeClock) -> None:
    control = Control()
    control.answer = ProblemError.of(Code.SERVICE_UNAVAILABLE, "Away.")
    rights = Rights(control, clock.monotonic, interval=60)  # type: ignore[arg-type]
    with pytest.raises(Refusal):
        await rights.confirm(ADMISSION)


def test_a_visit_fades_away_after_its_last_request(clock: FakeClock) -> None:
    streams = Streams(clock.monotonic)
    visits = Visits(streams, clock.monotonic, linger=90)
    visit = visits.of(ADMISSION)
    something = object()
    visit.begin(something, lambda: None)
    clock.advance(1000)
    visits.look()
    assert len(streams) == 1
    visit.finish(something)
    clock.advance(91)
    visits.look()
    assert (len(streams), len(visits)) == (0, 0)


def test_a_visit_that_is_ended_closes_what_it_has_open(clock: FakeClock) -> None:
    streams = Streams(clock.monotonic)
    visits = Visits(streams, clock.monotonic)
    closed: list[int] = []
    visits.of(ADMISSION).begin(object(), lambda: closed.append(1))
    assert streams.cut(SESSION, Close.ENDED, "Over.") == 1
    assert closed == [1]
    assert (len(streams), len(visits)) == (0, 0)


def fragments(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


REQUEST = (
    b"POST /x?y HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
    b"Cookie: streamspace_session=s; a=1\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\nGET /next"
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: x\r\nX-App: 1\r\n\r\n0123456789"


@given(st.lists(st.integers(0, 400)), st.lists(st.integers(0, 400)))
def test_messages_pass_whole_in_whatever_pieces_they_come(
    to_session: list[int], to_browser: list[int]
) -> None:
    async def exchange() -> None:
        browser, session, clock = Line(), Line(), FakeClock()
        front = h11.Connection(h11.SERVER)
        conduit, tunnel = Conduit(browser), AppTunnel(session)
        visit = Visits(Streams(clock.monotonic), clock.monotonic).of(ADMISSION)
        for piece in fragments(REQUEST, to_session):
            browser.arrive(piece)
        for piece in fragments(ANSWER, to_browser):
            session.arrive(piece)
        while (request := front.next_event()) is h11.NEED_DATA:
            front.receive_data(await conduit.read())
        assert isinstance(request, h11.Request)
        await Exchange(conduit, front, tunnel, visit, OUTSIDE).run(request)

        server = h11.Connection(h11.SERVER)
        server.receive_data(bytes(session.sent))
        head = server.next_event()
        assert isinstance(head, h11.Request)
        assert headers.values(list(head.headers), b"cookie") == [b"a=1"]
        body = b""
        while isinstance(event := server.next_event(), h11.Data):
            body += event.data
        assert body == b"abcdefg"
        assert b"next" not in session.sent
        answer, _, text = bytes(browser.sent).partition(b"\r\n\r\n")
        assert b"x-app: 1" in answer.lower()
        assert text == b"0123456789"
        assert front.our_state is h11.DONE

    asyncio.run(exchange())
