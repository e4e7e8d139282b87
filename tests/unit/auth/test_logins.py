"""When a failed login is one too many."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamspace_auth.domain.logins import (
    FailureLimit,
    account_key,
    address_group,
    too_many,
    wait,
    with_failure,
)
from streamspace_auth.throttle import AddressThrottle
from streamspace_common.contracts.problems import Code, ProblemError

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
LIMIT = FailureLimit(tries=3, window=timedelta(minutes=5))


def ago(**parts: float) -> datetime:
    return NOW - timedelta(**parts)


def test_fewer_failures_than_the_limit_wait_for_nothing() -> None:
    assert wait([], NOW, LIMIT) is None
    assert wait([ago(seconds=2), ago(seconds=1)], NOW, LIMIT) is None


def test_the_wait_ends_when_the_oldest_counted_failure_leaves_the_window() -> None:
    failures = [ago(minutes=4), ago(minutes=2), ago(minutes=1)]
    assert wait(failures, NOW, LIMIT) == timedelta(minutes=1)
    assert wait(failures, NOW + timedelta(minutes=1), LIMIT) is None


def test_failures_outside_the_window_are_forgotten() -> None:
    failures = [ago(minutes=9), ago(minutes=5), ago(minutes=1)]
    assert wait(failures, NOW, LIMIT) is None
    assert with_failure(failures, NOW, LIMIT) == (ago(minutes=1), NOW)


@given(st.lists(st.integers(0, 1000), max_size=40))
def test_never_more_judged_tries_in_any_window_than_the_limit(gaps: list[int]) -> None:
    moment = NOW
    kept: tuple[datetime, ...] = ()
    judged: list[datetime] = []
    for gap in gaps:
        moment += timedelta(seconds=gap)
        if wait(kept, moment, LIMIT) is None:
            judged.append(moment)
            kept = with_failure(kept, moment, LIMIT)
        assert len(kept) <= LIMIT.tries
    for first in judged:
        assert len([one for one in judged if first <= one < first + LIMIT.window]) <= LIMIT.tries


def test_an_account_is_counted_by_its_name_in_any_spelling_and_kept_as_a_digest() -> None:
    assert account_key("Ada") == account_key("ada ") != account_key("bob")
    assert "ada" not in account_key("ada")
    assert account_key("nul\x00byte")


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("unix:", "unix:"),
    ],
)
def test_addresses_are_counted_by_who_they_were_given_to(address: str, group: str) -> None:
    assert address_group(address) == group


def test_a_refusal_tells_whole_seconds() -> None:
    assert too_many(timedelta(seconds=1.2)).problem.retry_after == 2
    assert too_many(timedelta(0)).problem.retry_after == 1


def test_an_address_is_stopped_after_its_failures_and_others_are_not() -> None:
    throttle = AddressThrottle(FailureLimit(tries=3, window=timedelta(minutes=5)))
    for _ in range(3):
        throttle.check("2001:db8::1")
        throttle.count("2001:db8::1")
    with pytest.raises(ProblemError) as refused:
        throttle.check("2001:db8::2")
    assert refused.value.problem.code is Code.TOO_MANY_REQUESTS
    assert 0 < (refused.value.problem.retry_after or 0) <= 300
    throttle.check("192.0.2.1")
    throttle.count(None)
    throttle.check(None)
    throttle.close()
