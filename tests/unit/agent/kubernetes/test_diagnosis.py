"""What is wrong with a start, told in words: pods and events as real clusters write them."""

from typing import Any

import pytest

from streamspace_agent.runtimes.kubernetes import diagnosis, reading
from streamspace_agent.runtimes.kubernetes.diagnosis import Step
from streamspace_agent.runtimes.kubernetes.views import Snapshot
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, Reason

S = SessionId("ada-desktop-00000001")
POD = f"{S}-6d4cf56db6-x2x9z"
SCHEDULED = {"type": "PodScheduled", "status": "True"}


def pod(
    state: dict[str, Any] | None = None,
    *,
    conditions: Any = (SCHEDULED,),
    last: Any = None,
    restarts: int = 0,
    **status: Any,
) -> Any:
    container = {"name": "session", "restartCount": restarts, "state": state or {}}
    if last is not None:
        container["lastState"] = {"terminated": last}
    manifest = {
        "metadata": {
            "name": POD,
            "uid": "u1",
            "resourceVersion": "5",
            "labels": {"stream.space/session": S},
        },
        "spec": {"nodeName": "node-1"},
        "status": {"conditions": list(conditions), "containerStatuses": [container]} | status,
    }
    view = reading.read_pod(manifest)
    assert view is not None
    return view


def event(reason: str, message: str = "", kind: str = "Normal") -> Any:
    return reading.read_event(
        {
            "metadata": {"name": f"{POD}.{reason}", "resourceVersion": "6"},
            "involvedObject": {"kind": "Pod", "name": POD},
            "reason": reason,
            "message": message,
            "type": kind,
        }
    )


def waiting(reason: str, message: str = "") -> Snapshot:
    return Snapshot(S, pods=(pod({"waiting": {"reason": reason, "message": message}}),))


def unscheduled(message: str) -> Snapshot:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    return Snapshot(S, pods=(pod(conditions=[condition]),))


def refused(message: str) -> Snapshot:
    deployment = reading.read_deployment(
        {
            "metadata": {
                "name": S,
                "uid": "d1",
                "resourceVersion": "7",
                "generation": 1,
                "labels": {"stream.space/session": S},
            },
            "spec": {"replicas": 1},
            "status": {
                "conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]
            },
        }
    )
    return Snapshot(S, deployment=deployment)


NOT_FOUND = (
    'failed to pull and unpack image "docker.io/library/nope:1": failed to resolve reference '
    '"docker.io/library/nope:1": docker.io/library/nope:1: not found'
)
DENIED = (
    'Back-off pulling image "example.org/secret:1": ErrImagePull: failed to pull and unpack image '
    '"example.org/secret:1": failed to resolve reference "example.org/secret:1": pull access '
    "denied, repository does not exist or may require authorization: authorization failed: no "
    "basic auth credentials"
)
AWAY = (
    'failed to pull and unpack image "example.org/a:1": failed to do request: Head '
    '"https://example.org/v2/a/manifests/1": dial tcp: lookup example.org: no such host'
)
BUSY = (
    'failed to pull and unpack image "example.org/a:1": unexpected status from HEAD request to '
    "https://example.org/v2/a/manifests/1: 503 Service Unavailable"
)
QUOTA = (
    'pods "x" is forbidden: exceeded quota: desktops, requested: limits.memory=4Gi, '
    "used: limits.memory=14Gi, limited: limits.memory=16Gi"
)
NO_CPU = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {gpu: true}, 2 Insufficient cpu. "
    "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
)
NO_LABEL = (
    "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: "
    "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
)
NO_VOLUME = (
    "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 "
    "nodes are available: 1 Preemption is not helpful for scheduling."
)


@pytest.mark.parametrize(
    ("snapshot", "reason", "permanent", "words"),
    [
        (waiting("ErrImagePull", NOT_FOUND), Reason.IMAGE_NOT_FOUND, True, "nope:1 does not exist"),
        (waiting("ImagePullBackOff", NOT_FOUND), Reason.IMAGE_NOT_FOUND, True, "does not exist"),
        (waiting("ErrImagePull", DENIED), Reason.IMAGE_DENIED, True, "secret:1 may not be pulled"),
        (waiting("ErrImagePull", AWAY), Reason.IMAGE_UNAVAILABLE, False, "no such host."),
        (waiting("ErrImagePull", BUSY), Reason.IMAGE_UNAVAILABLE, False, "503 Service Unavailable"),
        (
            waiting("ErrImagePull", "toomanyrequests: You have reached your pull rate limit"),
            Reason.IMAGE_UNAVAILABLE,
            False,
            "for now",
        ),
        (
            waiting("ImagePullBackOff", 'Back-off pulling image "a:1"'),
            Reason.IMAGE_UNAVAILABLE,
            False,
            "The image a:1",
        ),
        (
            waiting("ErrImagePull", 'image "a:1": no match for platform in manifest: not found'),
            Reason.UNSUPPORTED_TEMPLATE,
            True,
            "processors",
        ),
        (
            waiting("InvalidImageName", 'couldn\'t parse image name "A:b:c"'),
            Reason.IMAGE_NOT_FOUND,
            True,
            "not a valid one",
        ),
        (waiting("ErrImageNeverPull"), Reason.IMAGE_NOT_FOUND, True, "not on the node"),
        (
            waiting("CreateContainerConfigError", 'secret "x" not found'),
            Reason.START_FAILED,
            True,
            'secret "x" not found',
        ),
        (
            waiting("CreateContainerError", "context deadline exceeded"),
            Reason.START_FAILED,
            False,
            "cannot be made",
        ),
        (unscheduled(NO_CPU), Reason.UNSCHEDULABLE, False, "not enough free CPU"),
        (unscheduled(NO_LABEL), Reason.UNSCHEDULABLE, True, "node selector"),
        (unscheduled(NO_VOLUME), Reason.UNSCHEDULABLE, False, "The home's volume"),
        (unscheduled("no nodes available"), Reason.UNSCHEDULABLE, False, "No node takes it yet"),
        (refused(QUOTA), Reason.QUOTA_EXCEEDED, True, "limited: limits.memory=16Gi"),
        (
            refused('pods "x" is forbidden: violates PodSecurity "restricted:latest"'),
            Reason.START_FAILED,
            True,
            "PodSecurity",
        ),
        (
            refused(
                'pods "x" is forbidden: error looking up service account desktops/default: '
                'serviceaccount "default" not found'
            ),
            Reason.START_FAILED,
            False,
            "serviceaccount",
        ),
    ],
)
def test_trouble_is_told_in_words(
    snapshot: Snapshot, reason: Reason, permanent: bool, words: str
) -> None:
    trouble = diagnosis.trouble(snapshot)
    assert trouble is not None
    assert (trouble.reason, trouble.permanent) == (reason, permanent)
    assert words in trouble.message
    assert trouble.message.endswith((".", "…"))


def test_a_crash_loop_asks_for_the_last_words() -> None:
    ended = {"exitCode": 127, "reason": "Error"}
    crashing = pod({"waiting": {"reason": "CrashLoopBackOff"}}, last=ended, restarts=2)
    trouble = diagnosis.trouble(Snapshot(S, pods=(crashing,)))
    assert trouble is not None
    assert (trouble.reason, trouble.permanent, trouble.wants_log) == (Reason.CRASH_LOOP, True, True)
    assert "exit code 127" in trouble.message


def test_running_out_of_memory_is_called_so() -> None:
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    trouble = diagnosis.trouble(Snapshot(S, pods=(pod({"terminated": ended}),)))
    assert trouble is not None
    assert (trouble.reason, trouble.permanent) == (Reason.OUT_OF_MEMORY, True)


def test_an_eviction_is_told_with_the_nodes_words() -> None:
    evicted = pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory")
    trouble = diagnosis.trouble(Snapshot(S, pods=(evicted,)))
    assert trouble is not None
    assert "low on resource: memory" in trouble.message


def test_a_volume_that_cannot_be_mounted_is_told_from_its_event() -> None:
    stuck = pod({"waiting": {"reason": "ContainerCreating"}})
    mounting = event("FailedMount", 'MountVolume failed for volume "pvc-1"', "Warning")
    trouble = diagnosis.trouble(Snapshot(S, pods=(stuck,), events=(mounting,)))
    assert trouble is not None
    assert not trouble.permanent
    assert "pvc-1" in trouble.message


def test_a_start_that_goes_well_has_no_trouble() -> None:
    assert diagnosis.trouble(Snapshot(S)) is None
    assert diagnosis.trouble(waiting("ContainerCreating")) is None
    assert diagnosis.trouble(Snapshot(S, pods=(pod({"running": {}}),))) is None


CREATING = {"waiting": {"reason": "ContainerCreating"}}
PULLED = (
    'Successfully pulled image "example.org/a:1" in 12.345s (12.4s including waiting). '
    "Image size: 1240000000 bytes."
)


@pytest.mark.parametrize(
    ("snapshot", "reached"),
    [
        (Snapshot(S), []),
        (Snapshot(S, pods=(pod(conditions=[]),)), []),
        (waiting("ContainerCreating"), [Step(Phase.SCHEDULED)]),
        (
            Snapshot(S, pods=(pod(CREATING),), events=(event("Pulling"), event("Created"))),
            [Step(Phase.SCHEDULED), Step(Phase.PULLING), Step(Phase.CREATED)],
        ),
        (
            Snapshot(S, pods=(pod(CREATING),), events=(event("Pulling"), event("Pulled", PULLED))),
            [Step(Phase.SCHEDULED), Step(Phase.PULLING, "1.2 GB in 12.345s.")],
        ),
        (
            Snapshot(S, pods=(pod({"running": {}}),)),
            [Step(Phase.SCHEDULED), Step(Phase.CREATED), Step(Phase.STARTED)],
        ),
    ],
)
def test_steps_are_read_from_pod_and_events(snapshot: Snapshot, reached: list[Step]) -> None:
    assert list(diagnosis.steps(snapshot)) == reached


@pytest.mark.parametrize(
    ("snapshot", "phase", "words"),
    [
        (unscheduled(NO_CPU), Phase.SCHEDULED, "not enough free CPU"),
        (
            Snapshot(S, pods=(pod(CREATING),), events=(event("Pulling"),)),
            Phase.PULLING,
            "fetches the image",
        ),
        (waiting("ImagePullBackOff", AWAY), Phase.PULLING, "no such host. It is tried again."),
        (waiting("ErrImagePull", NOT_FOUND), Phase.PULLING, "Check the template's image and tag."),
        (
            Snapshot(
                S,
                pods=(pod(CREATING),),
                events=(event("FailedMount", "timed out waiting", "Warning"),),
            ),
            Phase.CREATED,
            "cannot be mounted yet: timed out waiting.",
        ),
    ],
)
def test_what_a_start_waits_for_is_said_while_it_waits(
    snapshot: Snapshot, phase: Phase, words: str
) -> None:
    step = list(diagnosis.steps(snapshot))[-1]
    assert (step.phase, step.ongoing) == (phase, True)
    assert words in (step.message or "")


@pytest.mark.parametrize(
    ("containers", "whole", "silent"),
    [("True", "True", False), ("True", "False", True), ("False", "False", False)],
)
def test_a_node_is_silent_where_only_the_cluster_says_that_its_pod_is_not_ready(
    containers: str, whole: str, silent: bool
) -> None:
    conditions = [
        SCHEDULED,
        {"type": "ContainersReady", "status": containers},
        {"type": "Ready", "status": whole},
    ]
    assert pod({"running": {}}, conditions=conditions).ready_unknown is silent


def test_what_cannot_be_waited_for_is_no_step() -> None:
    """It fails the start, which tells it."""
    assert list(diagnosis.steps(refused(QUOTA))) == []


def test_the_last_words_are_the_end_of_the_log() -> None:
    log = "\n".join(f"line {n}" for n in range(9))
    told = diagnosis.with_last_words("It ended.", log)
    assert told == "It ended. Its last words: line 4 / line 5 / line 6 / line 7 / line 8"
    assert diagnosis.with_last_words("It ended.", " \n") == "It ended."
