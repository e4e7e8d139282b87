"""Pure decisions of the bus: pauses, refusals, configurations, positions."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamspace_common.bus import Delivery, RetryPolicy, StartAt
from streamspace_common.bus.errors import (
    ApiError,
    BusUnavailableError,
    MessageTooLargeError,
    WrongLastSequenceError,
)
from streamspace_common.bus.provision import durable_config, stream_config
from streamspace_common.bus.publishing import refusal
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.streams import COMMANDS, EVENTS, SESSION_EVENTS, agent_durable


@given(st.integers(min_value=1, max_value=10_000))
def test_pauses_grow_from_five_seconds_to_five_minutes(deliveries: int) -> None:
    longest = min(5.0 * 2 ** min(deliveries - 1, 30), 300.0)
    assert 0.9 * longest <= RetryPolicy().delay(deliveries) <= longest


def test_pauses_are_jittered() -> None:
    assert len({RetryPolicy().delay(1) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (
            {"code": 400, "err_code": 10071, "description": "wrong last sequence: 7"},
            WrongLastSequenceError,
        ),
        (
            {"code": 400, "err_code": 10164, "description": "wrong last sequence"},
            WrongLastSequenceError,
        ),
        (
            {"code": 400, "err_code": 10054, "description": "message size exceeds maximum allowed"},
            MessageTooLargeError,
        ),
        (
            {"code": 503, "err_code": 10008, "description": "system temporarily unavailable"},
            BusUnavailableError,
        ),
        # 503 by its number, but no wait will change it.
        (
            {"code": 503, "err_code": 10077, "description": "maximum messages per subject"},
            ApiError,
        ),
        ({"code": 400, "err_code": 10111, "description": "rollup not permitted"}, ApiError),
    ],
)
def test_a_refusal_says_whether_a_retry_makes_sense(
    problem: dict[str, object], expected: type[Exception]
) -> None:
    assert type(refusal("cmd.lab.s1", 3, problem, 10)) is expected


def test_a_wrong_sequence_tells_the_right_one_where_the_server_did() -> None:
    error = refusal("s", 3, {"code": 400, "err_code": 10071, "description": "wrong: 7"}, 1)
    assert isinstance(error, WrongLastSequenceError)
    assert (error.expected, error.actual) == (3, 7)


def test_commands_keep_the_newest_of_each_session_only() -> None:
    config = stream_config(COMMANDS)
    assert (config["max_msgs_per_subject"], config["discard"]) == (1, "old")
    assert config["allow_msg_ttl"]
    assert config["max_age"] == 7 * 86400 * 10**9


def test_events_cannot_be_removed() -> None:
    config = stream_config(EVENTS, num_replicas=3)
    assert config["deny_delete"]
    assert config["deny_purge"]
    assert config["num_replicas"] == 3


def test_one_filter_and_several_stand_in_different_fields() -> None:
    assert durable_config(agent_durable(ClusterId("lab")))["filter_subject"] == "cmd.lab.>"
    assert "filter_subject" not in durable_config(SESSION_EVENTS)
    assert len(durable_config(SESSION_EVENTS)["filter_subjects"]) == len(SESSION_EVENTS.filters)


def test_a_start_before_the_first_message_is_the_first_message() -> None:
    assert StartAt.sequence(-3) == StartAt.sequence(0) == StartAt.all()
    moment = datetime.now(UTC) - timedelta(hours=1)
    assert StartAt.time(moment) != StartAt.new()


def test_a_delivery_without_headers_has_no_type() -> None:
    assert Delivery(subject="s", payload=b"").type == ""
    assert Delivery(subject="s", payload=b"", headers={"ce-type": "a.v1"}).type == "a.v1"
