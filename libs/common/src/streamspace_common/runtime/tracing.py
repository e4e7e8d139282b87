"""Which request the running code works for, in W3C Trace Context form.

An edge (an HTTP request, a message taken from the bus) binds the `traceparent`
it was given, or a fresh one. Whatever is logged or published from there on
carries it, across the outbox too, so that one id finds everything a click caused.

`span` marks a piece of work in that trace. Nothing is recorded, and no SDK is loaded,
until `configure` names a collector; from then on what is published inside a span
carries the span as its parent.
"""

import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import Final, Protocol

import structlog

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)
_made_up: ContextVar[str | None] = ContextVar("made_up_traceparent", default=None)
"""The newest one that `tracing` made: nobody recorded the span it names."""

Value = str | int | float | bool


class Kind(StrEnum):
    """What a span is to whoever caused it; OpenTelemetry's kinds."""

    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    INTERNAL = "internal"


class Span(Protocol):
    """A piece of work while it goes on."""

    @property
    def traceparent(self) -> str:
        """What names it as the parent of others; empty where nothing is recorded."""
        ...

    def rename(self, name: str) -> None: ...

    def set(self, **attributes: Value) -> None: ...

    def fail(self, reason: str) -> None:
        """Mark it as failed."""

    def end(self, at: int | None = None) -> None:
        """It is over, now or `at` nanoseconds since 1970; a second time does nothing."""


class Recorder(Protocol):
    """Where spans go."""

    def start(
        self,
        name: str,
        kind: Kind,
        *,
        parent: str | None,
        trace_id: str | None,
        attributes: Mapping[str, Value],
        at: int | None = None,
    ) -> Span:
        """Begin a span; without a parent it is the first of `trace_id`, or of a new trace."""
        ...


class _Silent:
    """Stands for every span while nothing is recorded."""

    traceparent = ""

    def rename(self, name: str) -> None:
        pass

    def set(self, **attributes: Value) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass

    def end(self, at: int | None = None) -> None:
        pass


_SILENT: Final[Span] = _Silent()


class _Switch:
    recorder: Recorder | None = None


_switch: Final = _Switch()


def configure(service: str, endpoint: str | None, sample_ratio: float = 1.0) -> None:
    """Record spans from now on, or, without a collector, do not.

    Args:
        service: as in `vnc-proxy`.
        endpoint: base address of a collector that takes OTLP over HTTP.
        sample_ratio: share of traces that are kept, the same ones by every service.
    """
    if endpoint is None:
        _switch.recorder = None
        return
    # Here, since the SDK costs memory and time that an installation without it need not pay.
    from streamspace_common.runtime.tracing_otlp import OtlpRecorder

    _switch.recorder = OtlpRecorder(service, endpoint, sample_ratio)


def new_traceparent(trace_id: str | None = None) -> str:
    """A new span, of a new trace or of the one given (32 hex digits)."""
    return f"00-{trace_id or secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace's id, or None when `traceparent` is missing or malformed."""
    matched = _TRACEPARENT.match(traceparent) if traceparent else None
    return matched[1] if matched else None


def current_traceparent() -> str | None:
    """What is bound here, to be sent along with whatever is published."""
    return _current.get()


@contextmanager
def tracing(traceparent: str | None) -> Iterator[str]:
    """Work for the given trace inside the block, or for a new one when it is not usable."""
    trace_id = trace_id_of(traceparent)
    bound = traceparent if traceparent and trace_id else new_traceparent()
    if not trace_id:
        _made_up.set(bound)
    token = _current.set(bound)
    try:
        with structlog.contextvars.bound_contextvars(trace_id=trace_id_of(bound)):
            yield bound
    finally:
        _current.reset(token)


@contextmanager
def span(
    name: str,
    kind: Kind = Kind.INTERNAL,
    *,
    parent: str | None = None,
    began: float = 0.0,
    **attributes: Value,
) -> Iterator[Span]:
    """A span around the block, below `parent` or below what is bound here.

    It counts from `began` seconds ago, where its parent came to be known late.

    Inside, it is what `current_traceparent` gives. An exception marks it as failed and
    goes on. Names are few: ids belong into attributes.
    """
    recorder = _switch.recorder
    if recorder is None:
        yield _SILENT
        return
    at = time.time_ns() - round(began * 1e9) if began else None
    begun = _start(recorder, name, kind, parent, attributes, at)
    token = _current.set(begun.traceparent)
    try:
        with structlog.contextvars.bound_contextvars(trace_id=trace_id_of(begun.traceparent)):
            yield begun
    except Exception as error:
        begun.fail(type(error).__name__)
        raise
    finally:
        _current.reset(token)
        begun.end()


def past_span(name: str, seconds: float, *, parent: str | None = None, **attributes: Value) -> None:
    """Record what took `seconds` and has ended just now."""
    recorder = _switch.recorder
    if recorder is None:
        return
    now = time.time_ns()
    began = now - round(seconds * 1e9)
    _start(recorder, name, Kind.INTERNAL, parent, attributes, began).end(now)


def _start(
    recorder: Recorder,
    name: str,
    kind: Kind,
    parent: str | None,
    attributes: Mapping[str, Value],
    at: int | None = None,
) -> Span:
    above = parent if trace_id_of(parent) else _current.get()
    return recorder.start(
        name,
        kind,
        parent=None if above == _made_up.get() else above,
        trace_id=trace_id_of(above),
        attributes=attributes,
        at=at,
    )
