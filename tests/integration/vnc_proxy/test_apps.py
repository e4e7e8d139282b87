"""Sessions with a web client of their own, at their own origin, through the whole relay."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlencode

import h11
import pytest
import pytest_asyncio
from tests.integration.vnc_proxy.parties import SESSION, Proxy, ProxyFactory, ScriptedAgent
from tests.integration.vnc_proxy.test_life import changed

from streamspace_common.bus import Bus
from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.sessions import SessionState, ViewerRole
from streamspace_common.testing.waiting import eventually

MIB = 1024 * 1024
ORIGIN = "http://localhost:8080"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Backend:
    """A session's own web server, one request after the other; `raw` may answer instead."""

    port: int = 0
    connections: int = 0
    closed: int = 0
    heads: list[h11.Request] = field(default_factory=list)
    raw: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None

    def header(self, name: bytes, at: int = -1) -> list[bytes]:
        return [value for key, value in self.heads[at].headers if key == name]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except OSError:
            pass
        finally:
            self.closed += 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.raw is not None:
            await self.raw(reader, writer)
            return
        http = h11.Connection(h11.SERVER)
        while True:
            request, digest, size = None, hashlib.sha256(), 0
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    request = event
                    self.heads.append(event)
                    if event.target == b"/ws":
                        await self._echo(http, reader, writer)
                        return
                elif isinstance(event, h11.Data):
                    digest.update(event.data)
                    size += len(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    return
            assert request is not None
            await self._answer(http, writer, request, f"{size} {digest.hexdigest()}".encode())
            http.start_next_cycle()

    async def _answer(
        self, http: h11.Connection, writer: asyncio.StreamWriter, request: h11.Request, text: bytes
    ) -> None:
        headers = [
            (b"Set-Cookie", b"app=1; Domain=localhost; Path=/"),
            (b"Set-Cookie", b"streamspace_session=stolen"),
            (b"Strict-Transport-Security", b"max-age=1"),
        ]
        if request.target == b"/chunked":
            writer.write(http.send(h11.Response(status_code=200, headers=headers)) or b"")
            for number in range(100):
                writer.write(http.send(h11.Data(data=b"%d\n" % number)) or b"")
                await writer.drain()
        else:
            headers.append((b"Content-Length", str(len(text)).encode()))
            writer.write(http.send(h11.Response(status_code=200, headers=headers)) or b"")
            writer.write(http.send(h11.Data(data=text)) or b"")
        writer.write(http.send(h11.EndOfMessage()) or b"")
        await writer.drain()

    async def _echo(
        self, http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        upgrade = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"X-Mine", b"1")]
        assert isinstance(http.next_event(), h11.EndOfMessage)
        answer = h11.InformationalResponse(status_code=101, headers=upgrade)
        writer.write((http.send(answer) or b"") + http.trailing_data[0])
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


class Browser:
    """One connection to the data port, as a browser or a reverse proxy makes it."""

    def __init__(self, proxy: Proxy) -> None:
        self._port = proxy.running.port
        self.host = f"{SESSION}.localhost:{self._port}"
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.writer.close()

    def send(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> None:
        lines = {"Host": self.host, **(headers or {})}
        if body:
            lines["Content-Length"] = str(len(body))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        self.writer.write(head.encode() + b"\r\n" + body)

    async def answer(self, method: str = "GET") -> Answer:
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        http.send(h11.EndOfMessage())
        body, response = b"", None
        async with asyncio.timeout(15):
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await self.reader.read(65536))
                elif isinstance(event, h11.Response):
                    response = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    assert isinstance(event, h11.InformationalResponse), event
        assert response is not None
        headers: dict[str, str] = {}
        for key, value in response.headers:
            name = key.decode()
            headers[name] = (
                f"{headers[name]}, {value.decode()}" if name in headers else value.decode()
            )
        return Answer(response.status_code, headers, body)

    async def ask(
        self,
        path: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes = b"",
    ) -> Answer:
        self.send(method, path, headers, body)
        return await self.answer(method)

    async def enter(self, ticket: str, origin: str | None = ORIGIN) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if origin is not None:
            headers["Origin"] = origin
        form = urlencode({"ticket": ticket}).encode()
        return await self.ask("/_streamspace/enter", headers, method="POST", body=form)


@pytest_asyncio.fixture
async def backend(agent: ScriptedAgent) -> AsyncIterator[Backend]:
    made = Backend()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    agent.target = ("127.0.0.1", made.port)
    yield made
    for pump in agent.pumps:
        pump.close(1000, "")
    server.close()
    await server.wait_closed()


@pytest.fixture
def web(proxy: Proxy, backend: Backend) -> Proxy:
    proxy.control.protocol = Protocol.HTTP
    return proxy


async def admitted(proxy: Proxy) -> dict[str, str]:
    async with Browser(proxy) as browser:
        answer = await browser.enter(proxy.control.ticket())
    assert answer.status == 303, answer.body
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


async def test_a_ticket_becomes_a_cookie_of_this_host_once(web: Proxy) -> None:
    ticket = web.control.ticket()
    async with Browser(web) as browser:
        answer = await browser.enter(ticket)
        assert (answer.status, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("streamspace_session=")
        for attribute in ("Path=/", "HttpOnly", "SameSite=Lax"):
            assert attribute in cookie
        assert "Domain" not in cookie
        again = await browser.enter(ticket)
        assert (again.status, "set-cookie" in again.headers) == (403, False)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"http://{SESSION}.localhost"])
async def test_foreign_pages_may_not_bring_tickets(web: Proxy, origin: str) -> None:
    async with Browser(web) as browser:
        assert (await browser.enter(web.control.ticket(), origin)).status == 403


async def test_without_a_pass_there_is_a_friendly_page(web: Proxy, backend: Backend) -> None:
    async with Browser(web) as browser:
        answer = await browser.ask("/")
        assert answer.status == 401
        assert b"Open the session from StreamSpace" in answer.body
        assert (await browser.ask("/streams/x")).status == 401
        assert (await browser.ask("/_streamspace/enter")).status == 405
        assert (await browser.ask("/_streamspace/other")).status == 404
        head = await browser.ask("/", method="HEAD")
        assert (head.status, head.body) == (401, b"")
    assert backend.connections == 0


async def test_two_requests_share_connection_and_tunnel(web: Proxy, backend: Backend) -> None:
    cookie = await admitted(web)
    async with Browser(web) as browser:
        for path in ("/one", "/two?x=1"):
            answer = await browser.ask(path, cookie)
            assert (answer.status, answer.body[:2]) == (200, b"0 ")
    assert [head.target for head in backend.heads] == [b"/one", b"/two?x=1"]
    assert backend.connections == 1


async def test_requests_sent_at_once_are_answered_in_order(web: Proxy, backend: Backend) -> None:
    cookie = await admitted(web)
    async with Browser(web) as browser:
        browser.send("GET", "/one", cookie)
        browser.send("GET", "/two")
        browser.writer.write(b"")
        text = b""
        async with asyncio.timeout(10):
            while text.count(b"HTTP/1.1 ") < 2 or not text.endswith(b"</html>"):
                text += await browser.reader.read(65536)
    assert text.index(b"HTTP/1.1 200") < text.index(b"HTTP/1.1 401")


async def test_what_passes_is_the_applications_own(web: Proxy, backend: Backend) -> None:
    cookie = await admitted(web)
    sent = {
        "Cookie": f"theme=dark; {cookie['Cookie']}; streamspace_refresh=secret; a=b",
        "Authorization": "Bearer eyJhbGciOi",
        "X-Forwarded-For": "1.2.3.4",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "X-App": "2",
    }
    async with Browser(web) as browser:
        answer = await browser.ask("/", sent)
        assert backend.header(b"cookie") == [b"theme=dark; a=b"]
        assert backend.header(b"authorization") == []
        assert backend.header(b"x-hop") == []
        assert backend.header(b"x-app") == [b"2"]
        assert backend.header(b"x-forwarded-for") == [b"127.0.0.1"]
        assert backend.header(b"x-forwarded-proto") == [b"http"]
        assert backend.header(b"host") == [browser.host.encode()]
        assert answer.headers["set-cookie"] == "app=1; Path=/"
        assert "strict-transport-security" not in answer.headers
        assert answer.headers["referrer-policy"] == "same-origin"
        await browser.ask("/", {**cookie, "Authorization": "Basic YTpi"})
        assert backend.header(b"authorization") == [b"Basic YTpi"]


async def test_large_bodies_stream_with_and_without_a_length(web: Proxy, backend: Backend) -> None:
    cookie = await admitted(web)
    data = bytes(range(256)) * (4096 * 20)
    expected = f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode()
    async with Browser(web) as browser:
        answer = await browser.ask("/", cookie, method="POST", body=data)
        assert answer.body == expected
        browser.send("POST", "/", {**cookie, "Transfer-Encoding": "chunked"})
        for at in range(0, len(data), MIB):
            piece = data[at : at + MIB]
            browser.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await browser.writer.drain()
        browser.writer.write(b"0\r\n\r\n")
        assert (await browser.answer()).body == expected


async def test_an_answer_without_a_length_is_chunked(web: Proxy, backend: Backend) -> None:
    cookie = await admitted(web)
    async with Browser(web) as browser:
        answer = await browser.ask("/chunked", cookie)
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.body.split() == [b"%d" % number for number in range(100)]
        assert (await browser.ask("/", cookie)).status == 200


async def test_an_old_server_ends_its_answer_by_closing(web: Proxy, backend: Backend) -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nall of it")

    backend.raw = old
    cookie = await admitted(web)
    async with Browser(web) as browser:
        for _ in range(2):
            answer = await browser.ask("/", cookie)
            assert (answer.status, answer.body) == (200, b"all of it")
    assert backend.connections == 2


async def test_an_answer_that_stops_in_the_middle_is_seen_to(web: Proxy, backend: Backend) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    backend.raw = half
    cookie = await admitted(web)
    async with Browser(web) as browser:
        with pytest.raises((h11.RemoteProtocolError, OSError)):
            await browser.ask("/", cookie)


async def test_a_socket_becomes_a_pipe(web: Proxy, backend: Backend) -> None:
    cookie = await admitted(web)
    async with Browser(web) as browser:
        upgrade = {**cookie, "Connection": "keep-alive, Upgrade", "Upgrade": "websocket"}
        browser.send("GET", "/ws", {**upgrade, "Origin": f"http://{browser.host}"})
        browser.writer.write(b"early")
        async with asyncio.timeout(10):
            head = await browser.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101")
            assert b"x-mine" in head.lower()
            assert await browser.reader.readexactly(5) == b"early"
            data = bytes(3 * MIB)
            browser.writer.write(data)
            assert await browser.reader.readexactly(len(data)) == data
    await eventually(lambda: backend.closed == 1)


async def test_pages_of_another_session_cannot_use_the_cookie(web: Proxy, backend: Backend) -> None:
    cookie = await admitted(web)
    async with Browser(web) as browser:
        foreign = {**cookie, "Origin": "http://eve-files-0badcafe.localhost:8081"}
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
        assert (await browser.ask("/ws", foreign | upgrade)).status == 403
        assert (await browser.ask("/", foreign, method="POST")).status == 403
        assert (
            await browser.ask("/", {**cookie, "Sec-Fetch-Site": "same-site"}, method="POST")
        ).status == 403
    assert backend.connections == 0


async def test_a_pass_is_for_its_session_only_and_expires(
    start_proxy: ProxyFactory, agent: ScriptedAgent, backend: Backend
) -> None:
    proxy = await start_proxy(pass_lifetime=60)
    proxy.control.protocol = Protocol.HTTP
    cookie = await admitted(proxy)
    name, _, value = cookie["Cookie"].partition("=")
    async with Browser(proxy) as browser:
        assert (await browser.ask("/", {"Cookie": f"{name}={value[:-4]}AAAA"})).status == 401
        browser.host = f"eve-desktop-0badcafe.localhost:{proxy.running.port}"
        assert (await browser.ask("/", cookie)).status == 401
        browser.host = f"eve.localhost:{proxy.running.port}"
        assert (await browser.ask("/", cookie)).status == 421
    assert backend.connections == 0


async def test_looking_only_is_not_offered(web: Proxy) -> None:
    async with Browser(web) as browser:
        answer = await browser.enter(web.control.ticket(ViewerRole.VIEW))
        assert (answer.status, "set-cookie" in answer.headers) == (403, False)


async def test_a_desktop_is_not_entered(proxy: Proxy, backend: Backend) -> None:
    async with Browser(proxy) as browser:
        assert (await browser.enter(proxy.control.ticket())).status == 409


async def test_a_form_larger_than_a_ticket_is_refused(web: Proxy) -> None:
    async with Browser(web) as browser:
        assert (await browser.enter("x" * 5000)).status == 413


async def test_a_session_out_of_reach_is_a_page(web: Proxy, agent: ScriptedAgent) -> None:
    cookie = await admitted(web)
    agent.target = ("127.0.0.1", 1)
    async with Browser(web) as browser:
        answer = await browser.ask("/", cookie)
        assert answer.status == 502
        assert b"The desktop is not there." in answer.body
        assert b"Try again" in answer.body


async def test_a_server_that_closed_meanwhile_is_asked_again(web: Proxy, backend: Backend) -> None:
    answered = 0

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        await reader.readuntil(b"\r\n\r\n")
        answered += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        # The next request on this connection finds it closing.
        await reader.readuntil(b"\r\n\r\n")

    backend.raw = hasty
    cookie = await admitted(web)
    async with Browser(web) as browser:
        for _ in range(3):
            assert (await browser.ask("/", cookie)).body == b"ok"
    assert answered == 3


async def test_the_end_of_the_session_cuts_everything(
    web: Proxy, backend: Backend, bus: Bus
) -> None:
    cookie = await admitted(web)
    async with Browser(web) as socket, Browser(web) as browser:
        socket.send("GET", "/ws", {**cookie, "Connection": "Upgrade", "Upgrade": "websocket"})
        await socket.reader.readuntil(b"\r\n\r\n")
        assert (await browser.ask("/", cookie)).status == 200
        web.control.allowed = False
        web.control.state = SessionState.TERMINATING
        await bus.publish_event(changed(SessionState.TERMINATING), source="session")
        async with asyncio.timeout(10):
            assert await socket.reader.read() == b""
        await eventually(lambda: backend.closed == 2)
        answer = await browser.ask("/", cookie)
        assert (answer.status, b"The session was stopped." in answer.body) == (410, True)
    await eventually(lambda: len(web.running.relay.streams) == 0)


async def test_a_right_that_was_taken_away_ends_the_pass(
    start_proxy: ProxyFactory, agent: ScriptedAgent, backend: Backend
) -> None:
    proxy = await start_proxy(recheck_interval=0.2)
    proxy.control.protocol = Protocol.HTTP
    cookie = await admitted(proxy)
    proxy.control.allowed = False

    async def refused() -> bool:
        async with Browser(proxy) as browser:
            # What is on its way when the right is found to be gone is cut off.
            with suppress(h11.RemoteProtocolError):
                return (await browser.ask("/", cookie)).status == 403
        return False

    await eventually(refused)


async def test_it_counts_as_a_viewer_with_input(web: Proxy, backend: Backend) -> None:
    cookie = await admitted(web)
    async with Browser(web) as browser:
        await browser.ask("/", cookie)
        [seen] = web.running.relay.streams.sessions
        assert len(seen.streams) == 1
        assert seen.last_input is not None
        seen.account()
        assert seen.bytes_to_viewers > 0


async def test_a_waiting_answer_ends_with_its_browser(web: Proxy, backend: Backend) -> None:
    asked = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()

    backend.raw = slow
    cookie = await admitted(web)
    async with Browser(web) as browser:
        browser.send("GET", "/", cookie)
        await asked.wait()
    await eventually(lambda: backend.closed == 1)
    await eventually(lambda: len(web.running.relay.apps) == 0)
