"""Quotas, presence, and what to do when time is over."""

from dataclasses import replace
from datetime import timedelta

import pytest

from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity, Heartbeat, Presence
from streamspace_common.contracts.sessions import Reason, SessionState
from streamspace_session.policy.deadlines import (
    Extend,
    Fail,
    GiveUpDeletion,
    Reissue,
    overdue,
)
from streamspace_session.policy.presence import Heard, live_agents, presence
from streamspace_session.policy.quotas import Quota, QuotaExceededError, Usage, check

S = SessionState


@pytest.mark.parametrize(
    ("usage", "word"),
    [
        (Usage(4, 100, 100), "3 sessions of 3"),
        (Usage(1, 2001, 100), "2.001 CPU cores of 2"),
        (Usage(1, 100, 2**30 + 2**29), "1.50 GiB of memory of 1.00"),
    ],
)
def test_each_limit_is_told_with_use_and_limit(usage, word):
    with pytest.raises(QuotaExceededError, match=word):
        check(usage, Quota(3, 2000, 2**30))


def test_the_last_allowed_session_is_allowed():
    check(Usage(3, 2000, 2**30), Quota(3, 2000, 2**30))


def test_zero_is_no_limit():
    check(Usage(10**6, 10**9, 10**15), Quota())


@pytest.fixture
def heard(sessions):
    def make(instance="a", *, ago=0.0, **fields):
        beat = Heartbeat(
            cluster_id="lab",
            instance=instance,
            runtime=RuntimeKind.NULL,
            version="1",
            sent_at=sessions.now,
            capacity=Capacity(max_sessions=1, cpu=1, memory=1),
            running_sessions=0,
            **fields,
        )
        return Heard(beat, sessions.now - timedelta(seconds=ago))

    return make


def test_silence_of_three_heartbeats_is_absence(sessions, heard):
    told = [heard("a", ago=14.9), heard("b", ago=15.0), heard("c", ago=1)]
    live = live_agents(told, sessions.now, timedelta(seconds=15))
    assert [one.heartbeat.instance for one in live] == ["c", "a"]


@pytest.mark.parametrize(
    ("agents", "expected"),
    [
        ([], Presence.OFFLINE),
        ([{}], Presence.ONLINE),
        ([{"trouble": "disk full"}], Presence.DEGRADED),
        ([{"draining": True}], Presence.DRAINING),
        ([{"draining": True}, {}], Presence.ONLINE),
        ([{"trouble": "disk full"}, {}], Presence.ONLINE),
        ([{"draining": True}, {"trouble": "disk full"}], Presence.DEGRADED),
    ],
)
def test_a_cluster_is_as_present_as_its_best_agent(sessions, heard, agents, expected):
    told = [heard(str(n), ago=1, **fields) for n, fields in enumerate(agents)]
    assert presence(told, sessions.now, timedelta(seconds=8)) is expected


@pytest.mark.parametrize(
    ("ago", "expected"),
    [(7.9, Presence.ONLINE), (8.0, Presence.DEGRADED), (12.9, Presence.DEGRADED)],
)
def test_a_late_heartbeat_degrades_its_cluster(sessions, heard, ago, expected):
    told = [heard("a", ago=ago)]
    assert presence(told, sessions.now, timedelta(seconds=8)) is expected


def test_a_late_agent_that_drains_still_drains(sessions, heard):
    told = [heard("a", ago=9, draining=True)]
    assert presence(told, sessions.now, timedelta(seconds=8)) is Presence.DRAINING


@pytest.fixture
def judge(sessions):
    def decide(tracked, *, live=True, minutes=60.0):
        now = sessions.later(minutes=minutes)
        return overdue(tracked, now, cluster_live=live, timing=sessions.timing)

    return decide


@pytest.mark.parametrize("state", [S.PENDING, S.STARTING, S.HIBERNATING, S.WAKING, S.TERMINATING])
def test_a_command_is_tried_again_while_attempts_remain_then_fails(sessions, judge, state):
    tracked = sessions.in_state(state)
    assert judge(tracked) == Reissue()
    spent = replace(tracked, order=replace(tracked.order, attempt=3, error="no space"))
    verdict = judge(spent)
    assert isinstance(verdict, Fail)
    assert verdict.reason is Reason.DEADLINE_EXCEEDED
    assert "no space" in verdict.message


def test_waiting_for_a_cluster_fails_with_what_to_do(sessions, judge):
    verdict = judge(sessions.in_state(S.PENDING, cluster=None), live=False)
    assert isinstance(verdict, Fail)
    assert verdict.reason is Reason.CLUSTER_OFFLINE
    assert "10 minutes" in verdict.message


def test_a_deletion_on_a_silent_cluster_waits_and_then_counts_as_done(sessions, judge):
    tracked = sessions.in_state(S.TERMINATING)
    assert judge(tracked, live=False, minutes=1) == Extend(sessions.later(minutes=10))
    assert judge(tracked, live=False, minutes=10) == GiveUpDeletion()


@pytest.mark.parametrize("state", [S.STARTING, S.WAKING, S.HIBERNATING])
def test_work_on_a_silent_cluster_is_left_to_become_unknown(sessions, judge, state):
    assert isinstance(judge(sessions.in_state(state), live=False), Extend)


def test_unknown_for_too_long_is_lost(sessions, judge):
    verdict = judge(sessions.in_state(S.UNKNOWN), live=False)
    assert isinstance(verdict, Fail)
    assert verdict.reason is Reason.LOST
    assert "7 days" in verdict.message
