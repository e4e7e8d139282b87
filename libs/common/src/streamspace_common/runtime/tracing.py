"""Which request the running code works for, in W3C Trace Context form.

An edge (an HTTP request, a message taken from the bus) binds the `traceparent`
it was given, or a fresh one. Whatever is logged or published from there on
carries it, across the outbox too, so that one id finds everything a click caused.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


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
    token = _current.set(bound)
    try:
        with structlog.contextvars.bound_contextvars(trace_id=trace_id_of(bound)):
            yield bound
    finally:
        _current.reset(token)
