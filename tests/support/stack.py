"""All of StreamSpace as separate processes, started the way `make up` starts it.

For the end-to-end tests and the benchmarks: a stack with a data folder and ports of
its own, and a signed-in user's view of its API.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from streamspace_embedded.ports import free_port

REPOSITORY = Path(__file__).parents[2]
ADMIN_PASSWORD = "correct horse battery staple"
FINAL = ("terminated", "failed")


@dataclass
class Event:
    id: int
    name: str
    data: dict[str, Any]


@dataclass
class Api:
    """One signed-in user's view of the HTTP API."""

    client: httpx2.AsyncClient
    username: str
    token: str
    user: dict[str, Any] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def request(self, method: str, path: str, **more: Any) -> httpx2.Response:
        headers = {**self.headers, **more.pop("headers", {})}
        return await self.client.request(method, f"/api/v1{path}", headers=headers, **more)

    async def get(self, path: str, **more: Any) -> httpx2.Response:
        return await self.request("GET", path, **more)

    async def post(self, path: str, **more: Any) -> httpx2.Response:
        return await self.request("POST", path, **more)

    async def launch(self, template: str = "starter_desktop", **more: Any) -> dict[str, Any]:
        answer = await self.post("/sessions", json={"template": template, **more})
        assert answer.status_code == 202, answer.text
        session: dict[str, Any] = answer.json()["session"]
        return session

    async def session(self, session_id: str) -> dict[str, Any]:
        answer = await self.get(f"/sessions/{session_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def delete(self, session_id: str) -> httpx2.Response:
        return await self.request("DELETE", f"/sessions/{session_id}")

    async def wait_for(self, session_id: str, *states: str, seconds: float = 30) -> dict[str, Any]:
        """Poll, patiently through refusals of a service that is just being restarted."""
        last: Any = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    with contextlib.suppress(httpx2.HTTPError):
                        answer = await self.get(f"/sessions/{session_id}")
                        last = answer.json()
                        if answer.status_code == 200 and last["state"] in states:
                            found: dict[str, Any] = last
                            return found
                        ended = answer.status_code == 200 and last["state"] in FINAL
                        assert not ended, f"ended instead of {states}: {last}"
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never became {states}; last seen: {last}") from None

    @contextlib.asynccontextmanager
    async def events(
        self, path: str, last_event_id: int | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        headers = {**self.headers, "Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = str(last_event_id)
        async with self.client.stream(
            "GET", f"/api/v1{path}", headers=headers, timeout=60
        ) as answer:
            assert answer.status_code == 200
            yield read_events(answer)


async def read_events(answer: httpx2.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


@dataclass
class Stack:
    """A running StreamSpace and its folders."""

    process: subprocess.Popen[bytes]
    data: Path
    url: str
    log: Path

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.data / "run.json").read_text()))

    def pid(self, service: str) -> int:
        return int(self.state()["processes"][service])

    def kill(self, service: str, number: signal.Signals = signal.SIGKILL) -> int:
        pid = self.pid(service)
        os.kill(pid, number)
        return pid

    @contextlib.contextmanager
    def held(self, service: str) -> Iterator[None]:
        """Kill a service and keep the launcher, paused, from restarting it."""
        pid = self.pid(service)
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def homes(self) -> Path:
        return self.data / "agent" / "homes"

    def processes_of(self, session_id: str) -> list[int]:
        """Processes that carry the session's mark in their environment."""
        mark = f"STREAMSPACE_SESSION_ID={session_id}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def paths_of(self, session_id: str) -> list[Path]:
        """What is left of a session on disk, besides its home and the record of its end."""
        return [
            path
            for path in self.data.rglob(f"*{session_id}*")
            if "homes" not in path.parts and "fences" not in path.parts
        ]


def launch(
    data: Path, settings: Mapping[str, str] | None = None, options: Sequence[str] = ()
) -> Stack:
    """Start it, with more variables and more options of `up`; see `wait_until_ready`."""
    data.mkdir(parents=True, exist_ok=True)
    port, stream_port = free_port(), free_port()
    log = data.parent / f"{data.name}.log"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("STREAMSPACE_")
    } | {
        "STREAMSPACE_ADMIN_PASSWORD": ADMIN_PASSWORD,
        # All tests come from one address, and some of them fail to sign in on purpose.
        "STREAMSPACE_AUTH_LOGIN_TRIES_PER_ADDRESS": "10000",
        "STREAMSPACE_GATEWAY_CREATE_RATE": "100000/minute",
        "STREAMSPACE_GATEWAY_CONNECT_RATE": "100000/minute",
        **(settings or {}),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "streamspace_embedded.main", "up",
                "--data", str(data), "--port", str(port), "--stream-port", str(stream_port),
                *options,
            ],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    return Stack(process, data, f"http://127.0.0.1:{port}", log)


async def wait_until_ready(stack: Stack, seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if stack.process.poll() is not None:
                raise AssertionError(f"the launcher ended:\n{stack.log.read_text()[-4000:]}")
            with contextlib.suppress(OSError, ValueError, KeyError):
                if stack.state()["ready"]:
                    return
            await asyncio.sleep(0.1)


def end(stack: Stack) -> None:
    stack.process.send_signal(signal.SIGINT)
    try:
        stack.process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(stack.process.pid, signal.SIGKILL)
        stack.process.wait(10)
        raise AssertionError(
            f"the launcher did not end:\n{stack.log.read_text()[-4000:]}"
        ) from None


async def patiently(
    ask: Callable[[], Awaitable[httpx2.Response]], *, accepted: tuple[int, ...] = (200, 202)
) -> httpx2.Response:
    """Repeat a request that is refused for now, as a client would; each refusal is a problem."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                answer = await ask()
                if answer.status_code in accepted:
                    return answer
                assert answer.status_code in {404, 429, 502, 503}, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
            await asyncio.sleep(0.2)


async def sign_in(client: httpx2.AsyncClient, username: str, password: str) -> Api:
    answer = await client.post(
        "/api/v1/auth/login", json={"username": username, "password": password}
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return Api(client, username, body["accessToken"], body["user"])
