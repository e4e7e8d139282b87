"""How far a start is, and what is wrong with it, told in words a user understands.

Kubernetes tries most things for ever. What will not get better by waiting is told apart
here: an image that is not there, a name that cannot be one, a program that ends as often
as it is started, a quota that is used up. What may get better (a node that joins, a
registry that answers again) is trouble that passes; it is told when patience runs out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from streamspace_agent.runtimes.containers import quantities
from streamspace_agent.runtimes.kubernetes.views import (
    DeploymentView,
    Ended,
    EventView,
    PodView,
    Snapshot,
)
from streamspace_common.contracts.sessions import Phase, Reason

_NOT_THERE = re.compile(
    r"not found|manifest unknown|name unknown|does not exist|no such image|repository unknown",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"unauthori[sz]ed|access denied|forbidden|authentication required|no basic auth|"
    r"authorization failed|denied: ",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"dial tcp|no such host|i/o timeout|connection re(fused|set)|tls handshake|"
    r"deadline exceeded|too ?many ?requests|: EOF|server misbehaving|"
    r"5\d\d [A-Z][a-z]+|unexpected status.*: 5\d\d",
    re.IGNORECASE,
)
_WRONG_PLATFORM = re.compile(r"no match for platform|exec format error", re.IGNORECASE)
_PULL_FAILED = frozenset({"ErrImagePull", "ImagePullBackOff"})
_MOUNTING = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
_NODES = re.compile(r"^0/(\d+) nodes are available: (.*)$", re.DOTALL)
_INSUFFICIENT = re.compile(r"Insufficient ([a-z0-9./-]*[a-z0-9])")
_NEVER_HERE = re.compile(r"(\d+) node\(s\) didn't match Pod's node affinity/selector")
_IMAGE = re.compile(r'image "([^"]+)"')
_PULLED = re.compile(r" in (\d[\w.]*[a-z])")
_WEIGHT = re.compile(r"Image size: (\d+) bytes")


@dataclass(frozen=True)
class Trouble:
    """What keeps a session from running. `permanent`: waiting does not help."""

    reason: Reason
    message: str
    permanent: bool
    wants_log: bool = False
    """The last lines of its log would tell more."""


@dataclass(frozen=True)
class Step:
    """A phase that a start has reached, or with `ongoing` one that it is in; and a word on it."""

    phase: Phase
    message: str | None = None
    ongoing: bool = False


def steps(snapshot: Snapshot, fetching: float = 0.0) -> Iterator[Step]:
    """How far a start is, in order, all but `ready`.

    Args:
        snapshot: what is seen of it.
        fetching: for how many seconds its node has been fetching the image.
    """
    pod = snapshot.pod
    if pod is None or not pod.scheduled:
        held_up = trouble(snapshot)
        if held_up is not None and not held_up.permanent:
            yield Step(Phase.SCHEDULED, held_up.message, ongoing=True)
        return
    yield Step(Phase.SCHEDULED)
    begun = pod.running or pod.ended is not None
    created = begun or bool(_event(snapshot, pod, "Created"))
    if pod.waiting_reason in _PULL_FAILED or _event(snapshot, pod, "Pulling"):
        fetched = _event(snapshot, pod, "Pulled")
        if not created and fetched is None:
            yield Step(Phase.PULLING, _fetching(pod, fetching), ongoing=True)
            return
        yield Step(Phase.PULLING, _fetched(fetched.message) if fetched else None)
    if created:
        yield Step(Phase.CREATED)
    elif (held_up := _mounting(snapshot, pod)) is not None:
        yield Step(Phase.CREATED, held_up.message, ongoing=True)
    if begun:
        yield Step(Phase.STARTED)


def is_fetching(snapshot: Snapshot) -> bool:
    """Whether the node fetches the image right now, without trouble."""
    last = list(steps(snapshot))[-1:]
    return (
        [(step.phase, step.ongoing) for step in last] == [(Phase.PULLING, True)]
        and snapshot.pod is not None
        and snapshot.pod.waiting_reason not in _PULL_FAILED
    )


def _fetching(pod: PodView, seconds: float) -> str:
    if pod.waiting_reason not in _PULL_FAILED:
        # The kubelet says when it begins and when it is done, and nothing of how far it is.
        so_far = f", for {seconds:g} s so far" if seconds else ""
        return f"The node fetches the image{so_far}."
    failed = _pull(pod.waiting_message)
    return failed.message if failed.permanent else f"{failed.message} It is tried again."


def _fetched(message: str) -> str | None:
    """Of what the kubelet says: `Successfully pulled image "x" in 12.345s (12.4s including
    waiting). Image size: 1240000000 bytes.` (the size since Kubernetes 1.30).
    """
    matched = _PULLED.search(message)
    if matched is None:
        return None
    weight = _WEIGHT.search(message)
    what = quantities.size(int(weight.group(1))) if weight else "The image"
    return f"{what} in {matched.group(1)}."


def trouble(snapshot: Snapshot) -> Trouble | None:
    """What is wrong with a start right now; None when nothing is known to be."""
    pod = snapshot.pod
    if pod is None:
        return _no_pod(snapshot.deployment)
    if pod.phase == "Failed":
        return _pod_failed(pod)
    if not pod.scheduled:
        return _unschedulable(pod.scheduling_trouble) if pod.scheduling_trouble else None
    if pod.ended is not None and pod.ended.reason == "OOMKilled":
        return out_of_memory()
    if pod.waiting_reason:
        return _waiting(pod) or _mounting(snapshot, pod)
    return None


def death(pod: PodView, ended: Ended) -> Trouble:
    """Why a desktop that ran is gone."""
    if ended.reason == "OOMKilled":
        return out_of_memory()
    return Trouble(
        Reason.DESKTOP_DIED, f"The desktop ended {_how(ended)}.", permanent=True, wants_log=True
    )


def pod_loss(pod: PodView | None) -> str:
    """Why a pod that ran is gone, though nobody of ours removed it."""
    if pod is None:
        return "Its pod was deleted by somebody or something outside StreamSpace."
    if pod.reason == "Evicted":
        return f"The node had to evict it: {_sentence(pod.message)}"
    if pod.ready_unknown:
        return f"Its node {pod.node or ''} does not answer any more.".replace("  ", " ")
    if pod.phase == "Failed":
        return f"Its pod failed: {_sentence(pod.message or pod.reason or 'no reason was given')}"
    return "Its pod is being removed by somebody or something outside StreamSpace."


def out_of_memory() -> Trouble:
    return Trouble(
        Reason.OUT_OF_MEMORY,
        "It ran out of memory and was ended. Launch it again with more memory.",
        permanent=True,
    )


def with_last_words(message: str, log: str) -> str:
    """A message, and the last lines of a log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"{message} Its last words: {' / '.join(lines[-5:])}" if lines else message


_NO_ACCOUNT_YET = "error looking up service account"
"""Of a namespace that is seconds old, or while the cluster's controllers come back."""


def _no_pod(deployment: DeploymentView | None) -> Trouble | None:
    refusal = deployment.refusal if deployment is not None else None
    if refusal is None:
        return None
    if "exceeded quota" in refusal:
        return Trouble(
            Reason.QUOTA_EXCEEDED,
            f"The cluster's quota for sessions is used up ({_quota(refusal)}). "
            "Stop another session, or ask an administrator for a larger quota.",
            permanent=True,
        )
    return Trouble(
        Reason.START_FAILED,
        f"The cluster refuses the session's pod: {_sentence(refusal)}",
        permanent=_NO_ACCOUNT_YET not in refusal
        and ("forbidden" in refusal or "invalid" in refusal.lower()),
    )


def _quota(refusal: str) -> str:
    return refusal[refusal.index("exceeded quota") :].removeprefix("exceeded quota: ").strip(". ")


def _pod_failed(pod: PodView) -> Trouble:
    if pod.reason == "Evicted":
        return Trouble(Reason.NO_SPACE, pod_loss(pod), permanent=False)
    permanent = pod.reason in {"UnexpectedAdmissionError", "NodeAffinity"}
    return Trouble(Reason.START_FAILED, pod_loss(pod), permanent=permanent)


def _unschedulable(message: str) -> Trouble:
    matched = _NODES.match(message)
    if matched is None:
        return Trouble(
            Reason.UNSCHEDULABLE, f"No node takes it yet: {_sentence(message)}", permanent=False
        )
    nodes, causes = int(matched.group(1)), matched.group(2)
    # The second half only says why evicting others would not help.
    causes = causes.partition("preemption:")[0]
    if "persistentvolumeclaim" in causes.lower() or "volume" in causes.lower():
        return Trouble(
            Reason.UNSCHEDULABLE,
            f"The home's volume is not available: {_sentence(causes)}",
            permanent=False,
        )
    never = sum(int(count) for count in _NEVER_HERE.findall(causes))
    if never and never == nodes:
        return Trouble(
            Reason.UNSCHEDULABLE,
            f"No node of the cluster has the labels that sessions are to run on ({nodes} "
            "looked at). An administrator has to label a node or change the node selector.",
            permanent=True,
        )
    lacking = sorted({_spoken(name) for name in _INSUFFICIENT.findall(causes)})
    if lacking:
        return Trouble(
            Reason.UNSCHEDULABLE,
            f"The cluster has not enough free {' and '.join(lacking)} for it ({nodes} "
            f"{'node' if nodes == 1 else 'nodes'}). Stop another session or ask for less.",
            permanent=False,
        )
    return Trouble(
        Reason.UNSCHEDULABLE, f"No node takes it yet: {_sentence(causes)}", permanent=False
    )


def _spoken(resource: str) -> str:
    return {"cpu": "CPU", "ephemeral-storage": "disk space"}.get(resource, resource)


def _waiting(pod: PodView) -> Trouble | None:
    reason, message = pod.waiting_reason, pod.waiting_message
    if reason in _PULL_FAILED:
        return _pull(message)
    if reason == "InvalidImageName":
        return Trouble(
            Reason.IMAGE_NOT_FOUND,
            f"The template's image name is not a valid one: {_sentence(message)}",
            permanent=True,
        )
    if reason == "ErrImageNeverPull":
        return Trouble(
            Reason.IMAGE_NOT_FOUND,
            "The image is not on the node, and the agent's settings forbid to pull it.",
            permanent=True,
        )
    if reason == "CrashLoopBackOff":
        how = f" {_how(pod.ended)}" if pod.ended is not None else ""
        return Trouble(
            Reason.CRASH_LOOP,
            f"The desktop ends as often as it is started{how and ', last' + how}.",
            permanent=True,
            wants_log=True,
        )
    if reason in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
        return Trouble(
            Reason.START_FAILED,
            f"The container cannot be made: {_sentence(message or reason)}",
            permanent=reason != "CreateContainerError" or bool(_WRONG_PLATFORM.search(message)),
        )
    return None


def _pull(message: str) -> Trouble:
    named = _IMAGE.search(message)
    image = f"The image {named.group(1)}" if named else "The image"
    if _UNREACHABLE.search(message):
        return Trouble(
            Reason.IMAGE_UNAVAILABLE,
            f"{image} cannot be pulled for now: {_root_cause(message)}",
            permanent=False,
        )
    if _REFUSED.search(message) and not _NOT_THERE.search(message.partition("denied")[0]):
        return Trouble(
            Reason.IMAGE_DENIED,
            f"{image} may not be pulled: its registry wants credentials that the agent has not, "
            "or there is no such image. An administrator can set pull secrets.",
            permanent=True,
        )
    if _WRONG_PLATFORM.search(message):
        return Trouble(
            Reason.UNSUPPORTED_TEMPLATE,
            f"{image} is not made for this cluster's processors.",
            permanent=True,
        )
    if _NOT_THERE.search(message):
        return Trouble(
            Reason.IMAGE_NOT_FOUND,
            f"{image} does not exist in its registry. Check the template's image and tag.",
            permanent=True,
        )
    return Trouble(
        Reason.IMAGE_UNAVAILABLE,
        f"{image} cannot be pulled for now: {_root_cause(message)}",
        permanent=False,
    )


def _mounting(snapshot: Snapshot, pod: PodView) -> Trouble | None:
    newest: EventView | None = None
    for event in snapshot.events:
        if event.about == pod.name and event.reason in _MOUNTING:
            newest = event if newest is None or event.at >= newest.at else newest
    if newest is None:
        return None
    return Trouble(
        Reason.START_FAILED,
        f"The home's volume cannot be mounted yet: {_sentence(newest.message)}",
        permanent=False,
    )


def _event(snapshot: Snapshot, pod: PodView, reason: str) -> EventView | None:
    found = (each for each in snapshot.events if each.about == pod.name and each.reason == reason)
    return max(found, key=lambda event: event.at, default=None)


def _how(ended: Ended) -> str:
    if ended.signal:
        return f"by signal {ended.signal}"
    if ended.exit_code > 128:
        return f"by signal {ended.exit_code - 128}"
    return f"with exit code {ended.exit_code}"


def _root_cause(message: str) -> str:
    """The end of a chain of errors, where the cause is."""
    return _sentence(": ".join(message.split(": ")[-3:]))


def _sentence(text: str) -> str:
    words = " ".join(text.split())[:400].rstrip(" .;:")
    return f"{words}." if words else "no reason was given."
