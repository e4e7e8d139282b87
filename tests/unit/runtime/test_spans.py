"""Spans: nothing without a collector; with one, a tree below the trace that the logs name."""

import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest
import structlog

from streamspace_common.runtime import tracing
from streamspace_common.runtime.tracing import Kind, current_traceparent, past_span, span

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass
class Recorded:
    name: str
    kind: Kind
    parent: str | None
    traceparent: str
    attributes: dict = field(default_factory=dict)
    failed: str | None = None
    began: int | None = None
    ended: bool = False

    def rename(self, name):
        self.name = name

    def set(self, **attributes):
        self.attributes.update(attributes)

    def fail(self, reason):
        self.failed = reason

    def end(self, at=None):
        self.ended = True


class Recorder:
    def __init__(self):
        self.spans = []

    def start(self, name, kind, *, parent, trace_id, attributes, at=None):
        made = tracing.new_traceparent(trace_id)
        self.spans.append(Recorded(name, kind, parent, made, dict(attributes), began=at))
        return self.spans[-1]


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    monkeypatch.setattr(tracing._switch, "recorder", made)
    return made


def test_without_a_collector_a_span_changes_nothing():
    with tracing.tracing(PARENT), span("work", Kind.SERVER) as one:
        one.rename("other")
        assert current_traceparent() == PARENT
        assert one.traceparent == ""


def test_the_sdk_is_loaded_only_for_a_collector():
    program = (
        "import sys, streamspace_session.main, streamspace_gateway.main, streamspace_agent.main\n"
        "from streamspace_common.runtime import tracing\n"
        "tracing.configure('session', None)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def test_the_first_span_of_a_new_trace_has_no_parent_and_the_logs_id(recorder):
    with tracing.tracing(None) as bound, span("request", Kind.SERVER):
        assert structlog.contextvars.get_contextvars()["trace_id"] == tracing.trace_id_of(bound)
        with span("call", Kind.CLIENT):
            assert current_traceparent() == recorder.spans[1].traceparent
    request, call = recorder.spans
    assert request.parent is None
    assert tracing.trace_id_of(request.traceparent) == tracing.trace_id_of(bound)
    assert call.parent == request.traceparent
    assert request.ended
    assert call.ended


def test_a_span_goes_on_below_the_trace_that_was_given(recorder):
    with tracing.tracing(PARENT), span("handle"):
        pass
    assert recorder.spans[0].parent == PARENT


def test_a_parent_of_its_own_wins_and_its_trace_is_what_is_logged(recorder):
    with tracing.tracing(None), span("publish", Kind.PRODUCER, parent=PARENT):
        assert structlog.contextvars.get_contextvars()["trace_id"] == TRACE
    assert recorder.spans[0].parent == PARENT


def test_what_fails_is_marked_and_still_raised(recorder):
    with pytest.raises(ValueError), tracing.tracing(PARENT), span("work"):
        raise ValueError("no")
    assert recorder.spans[0].failed == "ValueError"
    assert recorder.spans[0].ended
    assert current_traceparent() is None


def test_what_is_over_can_be_recorded_with_the_time_it_took(recorder):
    past_span("phase ready", 2.0, parent=PARENT)
    (one,) = recorder.spans
    assert one.parent == PARENT
    assert one.ended
    assert one.began is not None


def test_a_span_may_have_begun_before_its_parent_was_known(recorder):
    before = time.time_ns()
    with tracing.tracing(PARENT), span("work", began=2.0):
        pass
    with span("work"):
        pass
    early, plain = recorder.spans
    assert early.parent == PARENT
    assert 1.9e9 < before - early.began < 2.1e9
    assert plain.began is None
