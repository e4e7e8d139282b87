"""A start: resources applied, then the pod watched until the session answers.

Nothing is asked again and again but the desktop itself: the picture's changes lead
through the phases, and only once the container runs is its port dialled, a few times a
second until it answers.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from streamspace_agent.ports import (
    PassingFailure,
    PermanentFailure,
    ReportPhase,
    Superseded,
)
from streamspace_agent.runtimes.kubernetes import diagnosis, kinds, manifests
from streamspace_agent.runtimes.kubernetes.api import ClusterApi
from streamspace_agent.runtimes.kubernetes.diagnosis import Step, Trouble
from streamspace_agent.runtimes.kubernetes.errors import AlreadyExistsError, NotFoundError
from streamspace_agent.runtimes.kubernetes.kinds import Manifest
from streamspace_agent.runtimes.kubernetes.options import KubernetesOptions
from streamspace_agent.runtimes.kubernetes.reading import read_deployment
from streamspace_agent.runtimes.kubernetes.views import (
    DeploymentView,
    PodView,
    Record,
    Snapshot,
)
from streamspace_agent.runtimes.kubernetes.watching import Picture
from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, Reason, SessionSpec
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_LOG_LINES: Final = 20
_FIRST_PROBE, _LONGEST_PROBE_PAUSE = 0.05, 0.5
_TERMINATING_HOME_PAUSE: Final = 0.5

Answers = Callable[[PodView, SessionSpec], Awaitable[bool]]
"""Whether a pod's session answers."""


@dataclass(frozen=True)
class Up:
    """A session that answers: the pod it answers on, and the Deployment that made it."""

    pod: PodView
    deployment: DeploymentView


class BringUp:
    """Applies a session's resources, and waits for it to answer."""

    def __init__(
        self, api: ClusterApi, picture: Picture, options: KubernetesOptions, answers: Answers
    ) -> None:
        self._api = api
        self._picture = picture
        self._options = options
        self._answers = answers

    async def apply(self, record: Record, spec: SessionSpec, *, replicas: int) -> DeploymentView:
        """Make the session's resources what its spec says; protection first.

        Raises:
            ApiError: the cluster refuses.
        """
        pods, generation, owner = self._options.pods, record.generation, record.uid
        await self.protect(record, spec)
        service = manifests.service(spec, generation, owner, pods)
        deployment = manifests.deployment(spec, generation, owner, pods, replicas=replicas)
        while True:
            _, written = await asyncio.gather(
                self._api.apply(kinds.SERVICE, service),
                self._api.apply(kinds.DEPLOYMENT, deployment),
            )
            applied = self._keep(written)
            if not applied.deleting:
                return applied
            # An earlier one is on its way out, and takes what is applied to it along.
            await self.wait_gone(record.session, applied.uid)

    async def wait_gone(self, session: SessionId, uid: str) -> None:
        """Until a Deployment that is being deleted is gone, and its pods with it.

        Raises:
            PassingFailure: it takes longer than its pod's grace and our patience.
        """
        try:
            async with asyncio.timeout(self._options.pods.grace + self._options.stop_patience):
                with self._picture.following(session) as changed:
                    while self._is_there(session, uid):
                        changed.clear()
                        await changed.wait()
        except TimeoutError:
            raise PassingFailure("The cluster has not removed the session's pod in time.") from None

    def _is_there(self, session: SessionId, uid: str) -> bool:
        snapshot = self._picture.snapshot(session)
        deployment = snapshot.deployment
        return (deployment is not None and deployment.uid == uid) or any(
            pod.deleting for pod in snapshot.pods
        )

    async def serve(self, record: Record, spec: SessionSpec) -> None:
        """What is around the pod, without touching it."""
        await self.protect(record, spec)
        service = manifests.service(spec, record.generation, record.uid, self._options.pods)
        await self._api.apply(kinds.SERVICE, service)

    async def protect(self, record: Record, spec: SessionSpec) -> None:
        """The home, and who may connect: what must be there before the pod."""
        policy = manifests.network_policy(spec, record.generation, record.uid, self._options.pods)
        steps: list[Awaitable[object]] = [self._api.apply(kinds.NETWORK_POLICY, policy)]
        if spec.persistent_home:
            steps.append(self._have_home(spec))
        await asyncio.gather(*steps)

    async def rest(self, record: Record, spec: SessionSpec) -> DeploymentView:
        """The Deployment without a pod."""
        resource = manifests.deployment(
            spec, record.generation, record.uid, self._options.pods, replicas=0
        )
        return self._keep(await self._api.apply(kinds.DEPLOYMENT, resource))

    async def wait_up(
        self, record: Record, spec: SessionSpec, applied: DeploymentView, report: ReportPhase
    ) -> Up:
        """Watch a start until the session answers.

        Raises:
            Superseded: a newer command came.
            PermanentFailure: it will not start, or not in time.
            PassingFailure: its resources were taken from under it.
        """
        try:
            async with asyncio.timeout(self._options.start_patience) as patience:
                started = _Reported(report, lambda: self._go_on_waiting(patience))
                return await self._watch(record, spec, applied, started)
        except TimeoutError:
            snapshot = self._picture.snapshot(record.session)
            raise self._out_of_patience(diagnosis.trouble(snapshot)) from None

    def _go_on_waiting(self, patience: asyncio.Timeout) -> None:
        """Each step that is reached is a sign of progress."""
        patience.reschedule(asyncio.get_running_loop().time() + self._options.start_patience)

    async def last_words(self, pod: str | None, message: str, *, previous: bool) -> str:
        """A message, with the end of the pod's log."""
        if pod is None:
            return message
        text = await self._api.read_log(pod, previous=previous, lines=_LOG_LINES)
        return diagnosis.with_last_words(message, text)

    async def _watch(
        self, record: Record, spec: SessionSpec, applied: DeploymentView, started: "_Reported"
    ) -> Up:
        pause = _FIRST_PROBE
        pulling = _Patience(self._options.pull_patience)
        fetch = _Fetch(self._options.fetch_word, self._options.fetch_patience)
        with self._picture.following(record.session) as changed:
            while True:
                changed.clear()
                snapshot = self._picture.snapshot(record.session)
                self._check_current(record, snapshot, applied)
                if self._is_current(snapshot, applied):
                    fetching = fetch.seconds(diagnosis.is_fetching(snapshot))
                    started.take(diagnosis.steps(snapshot, fetching))
                    await self._check_trouble(snapshot, pulling)
                up = self._may_answer(snapshot, applied, spec)
                if up is not None and await self._answers(up.pod, spec):
                    started.take(map(Step, (Phase.SCHEDULED, Phase.CREATED, Phase.STARTED)))
                    return up
                if up is None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(fetch.left() or pulling.left()):
                            await changed.wait()
                    continue
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PROBE_PAUSE)

    def _check_current(self, record: Record, snapshot: Snapshot, applied: DeploymentView) -> None:
        newest = snapshot.record
        if newest is None or newest.generation > record.generation:
            raise Superseded(newest.generation if newest else record.generation)
        if newest.wanted is not record.wanted:
            raise Superseded(newest.generation)
        deployment = snapshot.deployment
        if deployment is None or deployment.uid != applied.uid or deployment.deleting:
            raise PassingFailure(
                "The session's Deployment was deleted while it started; it is tried again."
            )

    def _is_current(self, snapshot: Snapshot, applied: DeploymentView) -> bool:
        """Whether what is seen is of our own apply, and not of what was there before."""
        deployment = snapshot.deployment
        if deployment is None or deployment.generation < applied.generation:
            return False
        return deployment.rolled_out or deployment.refusal is not None

    def _may_answer(
        self, snapshot: Snapshot, applied: DeploymentView, spec: SessionSpec
    ) -> Up | None:
        pod, deployment = snapshot.pod, snapshot.deployment
        if pod is None or deployment is None or not self._is_current(snapshot, applied):
            return None
        if not pod.running or pod.ip is None:
            return None
        connection = manifests.connection_of(spec.template_manifest)
        if connection.protocol is Protocol.HTTP and not pod.ready:
            return None
        return Up(pod, applied)

    async def _check_trouble(self, snapshot: Snapshot, pulling: "_Patience") -> None:
        trouble = diagnosis.trouble(snapshot)
        if trouble is None:
            return
        if not trouble.permanent and not (
            trouble.reason is Reason.IMAGE_UNAVAILABLE and pulling.is_out()
        ):
            return
        message = trouble.message
        if trouble.wants_log and snapshot.pod is not None:
            message = await self.last_words(snapshot.pod.name, message, previous=False)
        raise PermanentFailure(trouble.reason, message)

    def _out_of_patience(self, trouble: Trouble | None) -> PermanentFailure:
        if trouble is not None:
            return PermanentFailure(trouble.reason, trouble.message)
        return PermanentFailure(
            Reason.START_FAILED,
            f"The session did not answer within {self._options.start_patience:.0f} seconds.",
        )

    async def _have_home(self, spec: SessionSpec) -> None:
        """Make the user's home unless it is there; one on its way out is waited for."""
        claim = manifests.home_claim(spec, self._options.pods)
        name = claim["metadata"]["name"]
        async with asyncio.timeout(self._options.stop_patience + self._options.pods.grace):
            while True:
                try:
                    found: Manifest | None = await self._api.get(kinds.CLAIM, name)
                except NotFoundError:
                    found = None
                try:
                    if found is None:
                        await self._api.create(kinds.CLAIM, claim)
                        return
                    if "deletionTimestamp" not in found["metadata"]:
                        return
                except AlreadyExistsError:
                    # Two sessions of one user begin at once.
                    continue
                await asyncio.sleep(_TERMINATING_HOME_PAUSE)

    def _keep(self, manifest: Manifest) -> DeploymentView:
        self._picture.deployments.put(manifest)
        view = read_deployment(manifest)
        if view is None:
            raise PassingFailure("The cluster answered with another Deployment than was asked for.")
        return view


class _Patience:
    """So many seconds from the moment it is first asked for."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None

    def is_out(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._seconds
        return now >= self._until

    def left(self) -> float | None:
        """Seconds; None when nobody has asked for it, or it is out."""
        left = self._until - asyncio.get_running_loop().time() if self._until else 0.0
        return left if left > 0 else None


class _Fetch:
    """For how long an image is being fetched, in steps of so many seconds, up to a limit."""

    def __init__(self, step: float, limit: float) -> None:
        self._step = step
        self._limit = limit
        self._since: float | None = None

    def seconds(self, fetching: bool) -> float:
        now = asyncio.get_running_loop().time()
        if not fetching:
            self._since = None
            return 0.0
        if self._since is None:
            self._since = now
        return min(now - self._since, self._limit) // self._step * self._step

    def left(self) -> float | None:
        """Seconds until there is another word to say; None while nothing is fetched."""
        return self._step if self._since is not None else None


class _Reported:
    """Reports each phase once, in order, with the ones between that nobody saw.

    What is said of a phase that goes on is passed on whenever it changes.
    """

    _ORDER = tuple(Phase)
    _PASSED_BY = frozenset({Phase.PULLING})

    def __init__(self, report: ReportPhase, on_progress: Callable[[], None]) -> None:
        self._report = report
        self._on_progress = on_progress
        self._next = 0
        self._said: Step | None = None

    def take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            at = self._ORDER.index(step.phase)
            if step.ongoing:
                if at >= self._next and step != self._said:
                    self._said = step
                    self._report(step.phase, step.message, ongoing=True)
                    if step.phase is Phase.PULLING:
                        # How long that takes is the image's to say, within its own limit.
                        self._on_progress()
                continue
            while self._next <= at:
                phase = self._ORDER[self._next]
                self._next += 1
                if phase is step.phase or phase not in self._PASSED_BY:
                    self._report(phase, step.message if phase is step.phase else None)
                    self._on_progress()
