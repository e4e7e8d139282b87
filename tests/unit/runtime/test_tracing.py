"""One trace id follows a request through logs and messages."""

import pytest
import structlog

from streamspace_common.runtime.tracing import (
    current_traceparent,
    new_traceparent,
    trace_id_of,
    tracing,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def test_a_given_trace_is_kept_and_its_id_is_logged() -> None:
    with tracing(PARENT):
        assert current_traceparent() == PARENT
        assert structlog.contextvars.get_contextvars()["trace_id"] == TRACE
    assert current_traceparent() is None


@pytest.mark.parametrize("given", [None, "", "nonsense", PARENT.upper() + "x", f"00-{TRACE}"])
def test_without_a_usable_one_a_new_trace_begins(given: str | None) -> None:
    with tracing(given) as bound:
        assert bound != given
        assert trace_id_of(bound) is not None


def test_a_new_span_may_belong_to_a_known_trace() -> None:
    assert trace_id_of(new_traceparent(TRACE)) == TRACE
