"""Spans by OpenTelemetry's SDK, sent to a collector by OTLP over HTTP.

The only module that knows OpenTelemetry; `tracing.configure` loads it when there is a
collector. Spans leave in batches from a thread of the SDK's. A collector that is away
costs nothing but the spans.
"""

import os
import socket
from collections.abc import Mapping
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from streamspace_common.runtime.tracing import Kind, Span, Value

_KINDS: Final = {
    Kind.SERVER: trace.SpanKind.SERVER,
    Kind.CLIENT: trace.SpanKind.CLIENT,
    Kind.PRODUCER: trace.SpanKind.PRODUCER,
    Kind.CONSUMER: trace.SpanKind.CONSUMER,
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
}
_EXPORT_EVERY: Final = 1_000
"""Milliseconds."""
_EXPORT_TIMEOUT: Final = 5.0
"""Seconds. Also the longest that the end of a process waits for the collector."""

_wanted_trace: ContextVar[int | None] = ContextVar("wanted_trace", default=None)


class _Ids(RandomIdGenerator):
    """A trace whose id stands in the log already keeps it."""

    def generate_trace_id(self) -> int:
        return _wanted_trace.get() or super().generate_trace_id()


class OtlpRecorder:
    """`tracing.Recorder` with a collector behind it."""

    def __init__(self, service: str, endpoint: str, sample_ratio: float) -> None:
        provider = TracerProvider(
            resource=Resource.create(_identity(service)),
            # By the trace's id, so that all services keep the same traces, whoever began them.
            sampler=TraceIdRatioBased(sample_ratio),
            id_generator=_Ids(),
        )
        exporter = OTLPSpanExporter(
            endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT
        )
        provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY)
        )
        self._tracer = provider.get_tracer("streamspace")

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
        token = _wanted_trace.set(int(trace_id, 16) if trace_id else None)
        try:
            return _Recorded(
                self._tracer.start_span(
                    name,
                    context=_context(parent),
                    kind=_KINDS[kind],
                    attributes=dict(attributes),
                    start_time=at,
                )
            )
        finally:
            _wanted_trace.reset(token)


class _Recorded:
    """`tracing.Span` over the SDK's."""

    def __init__(self, inner: trace.Span) -> None:
        self._inner = inner

    @property
    def traceparent(self) -> str:
        context = self._inner.get_span_context()
        return (
            f"00-{trace.format_trace_id(context.trace_id)}"
            f"-{trace.format_span_id(context.span_id)}-{context.trace_flags:02x}"
        )

    def rename(self, name: str) -> None:
        self._inner.update_name(name)

    def set(self, **attributes: Value) -> None:
        self._inner.set_attributes(attributes)

    def fail(self, reason: str) -> None:
        self._inner.set_status(trace.Status(trace.StatusCode.ERROR, reason))

    def end(self, at: int | None = None) -> None:
        if self._inner.is_recording():
            self._inner.end(at)


def _context(parent: str | None) -> Context:
    """What makes `parent` the parent; an empty one makes the span the first of its trace."""
    if parent is None:
        return Context()
    _, trace_id, span_id, _ = parent.split("-")
    above = trace.SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(1)
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(above), Context())


def _identity(service: str) -> dict[str, str]:
    identity = {
        "service.namespace": "streamspace",
        "service.name": service,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }
    try:
        identity["service.version"] = version(f"streamspace-{service}")
    except PackageNotFoundError:
        return identity
    return identity
