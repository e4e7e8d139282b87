"""What a cluster's nodes can hold."""

from streamspace_agent.runtimes.kubernetes.nodes import added_up
from streamspace_common.contracts.clusters import Capacity


def node(*, ready: str = "True", labels: dict[str, str] | None = None, cordoned: bool = False):
    return {
        "metadata": {"name": "n", "labels": labels or {}},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "allocatable": {"cpu": "1500m", "memory": "2Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def test_what_ready_nodes_offer_is_added_up() -> None:
    nodes = [node(), node(), node(ready="Unknown"), node(cordoned=True)]
    assert added_up(nodes, {}) == Capacity(max_sessions=200, cpu=3.0, memory=4 * 2**30)


def test_nodes_that_sessions_may_not_run_on_do_not_count() -> None:
    nodes = [node(labels={"pool": "desktops"}), node()]
    assert added_up(nodes, {"pool": "desktops"}).max_sessions == 100
