"""Where sessions go, and why they cannot."""

from dataclasses import replace

import pytest

from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity, Presence
from streamspace_session.policy.placement import (
    Candidate,
    NoClusterError,
    Overcommit,
    Requirement,
    choose,
    requirement,
)
from streamspace_session.policy.quantities import Demand

NEED = Requirement(runtimes=frozenset({RuntimeKind.PROCESS}), demand=Demand(1000, 2**30), labels={})
AS_IS = Overcommit(1.0, 1.0)


def cluster(name, **fields):
    given = {
        "presence": Presence.ONLINE,
        "runtime": RuntimeKind.PROCESS,
        "capacity": Capacity(max_sessions=10, cpu=8, memory=16 * 2**30),
        "labels": {},
        **fields,
    }
    return Candidate(id=name, **given)


def test_the_emptiest_cluster_is_chosen_by_its_fullest_resource():
    candidates = [
        cluster("a", reserved_sessions=1, reserved_cpu_milli=6000),
        cluster("b", reserved_sessions=4),
        cluster("c", reserved_memory=15 * 2**30),
    ]
    assert choose(candidates, NEED, AS_IS) == "b"


def test_a_small_and_a_large_cluster_fill_in_proportion():
    small = Capacity(max_sessions=2, cpu=0, memory=0)
    candidates = [
        cluster("a", capacity=small, reserved_sessions=1),
        cluster("b", reserved_sessions=5),
    ]
    assert choose(candidates, NEED, AS_IS) == "b"


def test_equals_go_by_their_id():
    assert choose([cluster("b"), cluster("a")], NEED, AS_IS) == "a"


@pytest.mark.parametrize("presence", [Presence.OFFLINE, Presence.DRAINING])
def test_who_is_away_or_draining_is_waited_for(presence):
    assert choose([cluster("a", presence=presence)], NEED, AS_IS) is None


def test_a_degraded_cluster_still_takes_sessions():
    assert choose([cluster("a", presence=Presence.DEGRADED)], NEED, AS_IS) == "a"


@pytest.mark.parametrize(
    "full",
    [
        {"reserved_sessions": 10},
        {"reserved_cpu_milli": 7001},
        {"reserved_memory": 15 * 2**30 + 1},
        {"capacity": Capacity(max_sessions=0, cpu=0, memory=0)},
        {"capacity": None},
    ],
)
def test_a_full_cluster_is_refused_with_the_reason(full):
    with pytest.raises(NoClusterError, match="full"):
        choose([cluster("a", **full)], NEED, AS_IS)


def test_cpu_and_memory_may_be_promised_several_times():
    taken = cluster("a", reserved_cpu_milli=15_000, reserved_memory=30 * 2**30)
    assert choose([taken], NEED, Overcommit(2.0, 2.0)) == "a"


def test_an_amount_a_cluster_does_not_name_is_no_limit():
    free = cluster("a", capacity=Capacity(max_sessions=1, cpu=0, memory=0))
    assert choose([free], NEED, AS_IS) == "a"


@pytest.mark.parametrize(
    ("unable", "why"),
    [
        ({"runtime": RuntimeKind.DOCKER}, "runs docker"),
        ({"runtime": None}, "never connected"),
        ({"labels": {"gpu": "no"}}, "lacks the labels"),
        ({"architecture": "aarch64", "labels": {"gpu": "yes"}}, "architecture"),
    ],
)
def test_who_cannot_run_it_is_named_with_the_reason(unable, why):
    need = Requirement(
        runtimes=NEED.runtimes,
        demand=NEED.demand,
        labels={"gpu": "yes"} if "labels" in unable else {},
        architectures=frozenset({"amd64"}) if "architecture" in unable else frozenset(),
    )
    with pytest.raises(NoClusterError, match=f"a: .*{why}"):
        choose([cluster("a", **unable)], need, AS_IS)


def test_no_cluster_at_all_says_how_to_get_one():
    with pytest.raises(NoClusterError, match="POST /clusters"):
        choose([], NEED, AS_IS)


def test_a_wished_for_cluster_is_the_only_one_considered():
    need = Requirement(runtimes=NEED.runtimes, demand=NEED.demand, labels={}, wanted="b")
    assert choose([cluster("a"), cluster("b", reserved_sessions=9)], need, AS_IS) == "b"
    with pytest.raises(NoClusterError, match="no cluster b"):
        choose([cluster("a")], need, AS_IS)


def test_a_manifest_may_ask_for_labels_and_architectures(sessions):
    manifest = sessions.manifest(clusterSelector={"gpu": True}, architectures=["x86_64"])
    need = requirement(manifest, NEED.demand, None)
    assert need.labels == {"gpu": "True"}
    assert need.architectures == {"amd64"}
    assert RuntimeKind.PROCESS in need.runtimes


def test_wishes_of_a_wrong_shape_are_no_wishes(sessions):
    need = requirement(
        sessions.manifest(clusterSelector="gpu", architectures="all"), NEED.demand, None
    )
    assert need.labels == {}
    assert need.architectures == frozenset()


def test_a_revoked_cluster_is_neither_chosen_nor_waited_for():
    away = cluster("a", revoked=True, presence=Presence.OFFLINE)
    assert choose([away, cluster("b", reserved_sessions=9)], NEED, AS_IS) == "b"
    with pytest.raises(NoClusterError, match="access of every cluster that could run this"):
        choose([away], NEED, AS_IS)


def test_who_asks_for_a_revoked_cluster_is_told_so_even_where_it_is_drained_too():
    asked = replace(NEED, wanted="a")
    gone = cluster("a", revoked=True, drained=True)
    with pytest.raises(NoClusterError, match="The access of cluster a has been revoked"):
        choose([gone, cluster("b")], asked, AS_IS)


def test_an_offline_cluster_is_still_waited_for_beside_a_revoked_one():
    candidates = [cluster("a", revoked=True), cluster("b", presence=Presence.OFFLINE)]
    assert choose(candidates, NEED, AS_IS) is None
