"""One trace from a click to a running desktop and back to the browser, over real processes.

The test is the collector: it takes OTLP over HTTP and keeps what it is sent.
"""

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.support.stack import (
    ADMIN_PASSWORD,
    FINAL,
    Stack,
    end,
    launch,
    sign_in,
    wait_until_ready,
)

from streamspace_common.testing.waiting import eventually


@dataclass(frozen=True)
class Span:
    service: str
    name: str
    trace_id: str
    id: str
    parent: str
    began: int
    ended: int


class Collector:
    """Takes spans from whoever sends them."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.spans.extend(read(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def of(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]


def read(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        names = {
            attribute.key: attribute.value.string_value
            for attribute in resource.resource.attributes
        }
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    names["service.name"],
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                )


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
async def traced(collector, tmp_path) -> AsyncIterator[Stack]:
    stack = launch(tmp_path / "data", {"STREAMSPACE_OTLP_ENDPOINT": collector.url})
    try:
        await wait_until_ready(stack)
        yield stack
    finally:
        await asyncio.to_thread(end, stack)


def logged(stack: Stack, process: str) -> list[dict]:
    found = []
    for line in (stack.data / "logs" / f"{process}.log").read_text().splitlines():
        if line.startswith("{"):
            found.append(json.loads(line))
    return found


CHAIN = (
    ("gateway", "POST /sessions"),
    ("gateway", "call session.create"),
    ("session", "handle session.create"),
    ("session", "publish session.start.v1"),
    ("agent", "process session.start.v1"),
    ("agent", "carry out start_session"),
    ("agent", "publish session.started.v1"),
    ("session", "process session.started.v1"),
    ("session", "publish session.state-changed.v1"),
    ("gateway", "deliver state"),
)


async def test_a_click_and_all_that_follows_of_it_are_one_tree(traced, collector):
    async with httpx2.AsyncClient(base_url=traced.url, timeout=30, trust_env=False) as client:
        admin = await sign_in(client, "admin", ADMIN_PASSWORD)
        async with admin.events("/events") as events:
            answer = await admin.post("/sessions", json={"template": "starter_terminal"})
            assert answer.status_code == 202, answer.text
            session_id = answer.json()["session"]["id"]
            async for event in events:
                if event.name == "state" and event.data["toState"] == "running":
                    break
        request_id = answer.headers["x-request-id"]
        line = next(one for one in logged(traced, "gateway") if one.get("request_id") == request_id)
        trace_id = line["trace_id"]

        def whole() -> bool:
            spans = collector.of(trace_id)
            assert {(span.service, span.name) for span in spans} >= set(CHAIN)
            known = {span.id for span in spans}
            orphans = [span for span in spans if span.parent and span.parent not in known]
            assert not orphans
            # More than one state is delivered; that it runs comes last.
            assert list(CHAIN) in ways({span.id: span for span in spans}, CHAIN[-1][1])
            return True

        await eventually(whole, timeout=30)
        await admin.delete(session_id)
        await admin.wait_for(session_id, *FINAL)

    spans = collector.of(trace_id)
    by_id = {span.id: span for span in spans}
    assert [(span.service, span.name) for span in spans if not span.parent] == [CHAIN[0]]
    phases = [span for span in spans if span.name.startswith("phase ")]
    assert {by_id[span.parent].name for span in phases} == {"carry out start_session"}
    assert {span.name for span in phases} >= {"phase started", "phase ready"}
    assert all(span.began <= span.ended for span in spans)
    for process in ("gateway", "session", "agent-local"):
        assert any(one.get("trace_id") == trace_id for one in logged(traced, process)), (
            f"{process} logged nothing of it"
        )


def ways(by_id: dict[str, Span], name: str) -> list[list[tuple[str, str]]]:
    """From the root to each span with this name."""
    found = []
    for span in by_id.values():
        if span.name == name:
            way = [span]
            while way[-1].parent:
                way.append(by_id[way[-1].parent])
            found.append([(one.service, one.name) for one in reversed(way)])
    return found
