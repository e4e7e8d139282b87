"""The cluster's picture: one watch per kind for all sessions, kept current for ever.

Every question about a session is answered from here, without asking the cluster, and
whoever waits for something is woken by the change itself. A watch ends all the time: its
server closes it every few minutes, restarts, or has forgotten where we were (410 Gone).
The first two go on from the last version seen, with a growing delay while nobody
answers; the last one begins anew with a full list, which is compared with what was held.

What our own writes return is put in at once, so that no agent ever reads an older state
than it has written itself.
"""

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from streamspace_agent.runtimes.kubernetes import kinds, reading
from streamspace_agent.runtimes.kubernetes.api import Change, ClusterApi
from streamspace_agent.runtimes.kubernetes.errors import (
    ApiError,
    ForbiddenError,
    GoneError,
    NotFoundError,
)
from streamspace_agent.runtimes.kubernetes.kinds import Kind, Manifest
from streamspace_agent.runtimes.kubernetes.views import (
    DeploymentView,
    EventView,
    PodView,
    Record,
    Snapshot,
)
from streamspace_common.contracts.ids import SessionId
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

TURN: Final = 300.0
"""Seconds a watch lasts at the most, where nobody says otherwise."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_BETWEEN: Final = 0.05
"""Seconds between watches: a server that is ending ends each one at once."""
_GRAVES: Final = 2000
_EVENTS_KEPT: Final = 20
"""Per pod: a start makes about five."""
_EVENTFUL_PODS: Final = 500


class _Versioned(Protocol):
    @property
    def version(self) -> str: ...


View = TypeVar("View", bound=_Versioned)


class Feed(Generic[View]):
    """All resources of one kind, as views.

    Args:
        api: where they are.
        kind: which.
        read: makes a view, or None of what is none of ours.
        on_change: told each view that came, changed or went, with whether it is there.
        selector: only these.
        turn: seconds a watch lasts at the most.
    """

    def __init__(
        self,
        api: ClusterApi,
        kind: Kind,
        read: Callable[[Manifest], View | None],
        on_change: Callable[[View, bool], None],
        selector: str | None = None,
        turn: float = TURN,
    ) -> None:
        self._api = api
        self._kind = kind
        self._read = read
        self._on_change = on_change
        self._selector = selector
        self._turn = turn
        self._held: dict[str, View] = {}
        self._graves: OrderedDict[str, int] = OrderedDict()
        self.current = asyncio.Event()
        """Set once everything there is has been read."""
        self.trouble: str | None = None
        """Why the picture cannot be kept current right now."""

    def get(self, name: str) -> View | None:
        return self._held.get(name)

    def all(self) -> Iterable[View]:
        return self._held.values()

    def put(self, manifest: Manifest) -> None:
        """A resource as an answer gave it; an older one than is held changes nothing."""
        view = self._read(manifest)
        if view is None:
            return
        name = manifest["metadata"]["name"]
        version = _number(view.version)
        held = self._held.get(name)
        if held is not None and _number(held.version) >= version:
            return
        if self._graves.get(name, -1) >= version:
            return
        self._held[name] = view
        self._on_change(view, True)

    async def run(self) -> None:
        """Keep current; for ever."""
        pause, version = _SHORTEST_PAUSE, ""
        while True:
            try:
                if not version:
                    version = await self._begin()
                async for change in self._api.watch(
                    self._kind, version, self._selector, seconds=_seconds(self._turn)
                ):
                    version = self._take(change) or version
                    pause, self.trouble = _SHORTEST_PAUSE, None
                await asyncio.sleep(_BETWEEN)
            except GoneError:
                log.info("watch begins anew", kind=self._kind.kind)
                version = ""
            except (ApiError, OSError) as error:
                self._note(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _begin(self) -> str:
        """List everything, and see what changed while nobody watched."""
        listed, version = await self._api.list(self._kind, self._selector)
        names = set()
        for manifest in listed:
            names.add(manifest["metadata"]["name"])
            self.put(manifest)
        for name in [name for name in self._held if name not in names]:
            # A resource that we wrote after the list was made is newer than the list.
            if _number(self._held[name].version) <= _number(version):
                self._bury(name, _number(version))
        self.trouble = None
        self.current.set()
        return version

    def _take(self, change: Change) -> str | None:
        metadata = change.resource["metadata"]
        version: str | None = metadata.get("resourceVersion")
        if change.type == "DELETED":
            self._bury(metadata["name"], _number(version))
        elif change.type != "BOOKMARK":
            self.put(change.resource)
        return version

    def _bury(self, name: str, version: int) -> None:
        view = self._held.get(name)
        if view is not None and _number(view.version) > version:
            # Already made anew.
            return
        self._graves[name] = version
        while len(self._graves) > _GRAVES:
            self._graves.popitem(last=False)
        if view is not None:
            del self._held[name]
            self._on_change(view, False)

    def _note(self, error: Exception) -> None:
        what = f"{self._kind.plural} in namespace {self._api.namespace}"
        if isinstance(error, ForbiddenError):
            self.trouble = f"The agent may not watch {what}: {error}"
        elif isinstance(error, NotFoundError):
            self.trouble = f"The cluster does not know {what}: are the CRDs installed?"
        else:
            self.trouble = f"The cluster's API does not answer: {error}"
        log.warning("watch interrupted", kind=self._kind.kind, error=str(error))


class EventFeed:
    """What the cluster tells of our pods; only news, as old events explain nothing."""

    def __init__(
        self, api: ClusterApi, on_change: Callable[[EventView], None], turn: float = TURN
    ) -> None:
        self._api = api
        self._on_change = on_change
        self._turn = turn

    async def run(self) -> None:
        """Listen; for ever."""
        pause, version = _SHORTEST_PAUSE, ""
        while True:
            try:
                version = version or await self._api.newest_version(kinds.EVENT)
                async for change in self._api.watch(
                    kinds.EVENT, version, seconds=_seconds(self._turn)
                ):
                    version = change.resource["metadata"].get("resourceVersion") or version
                    pause = _SHORTEST_PAUSE
                    if change.type in {"ADDED", "MODIFIED"}:
                        view = reading.read_event(change.resource)
                        if view is not None and view.about_kind == kinds.POD.kind:
                            self._on_change(view)
                await asyncio.sleep(_BETWEEN)
            except GoneError:
                version = ""
            except (ApiError, OSError) as error:
                log.debug("events interrupted", error=str(error))
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)


class Picture:
    """Everything about the sessions of a namespace, by session."""

    def __init__(self, api: ClusterApi, turn: float = TURN) -> None:
        ours = kinds.OURS
        self.sessions: Feed[Record] = Feed(
            api, kinds.SESSION, reading.read_record, self._record_changed, turn=turn
        )
        self.deployments: Feed[DeploymentView] = Feed(
            api, kinds.DEPLOYMENT, reading.read_deployment, self._deployment_changed, ours, turn
        )
        self.pods: Feed[PodView] = Feed(
            api, kinds.POD, reading.read_pod, self._pod_changed, ours, turn
        )
        self.events = EventFeed(api, self._event_came, turn)
        self.on_change: Callable[[SessionId], None] = lambda _session: None
        """Told of each session about which anything changed."""
        self._pods_of: dict[SessionId, dict[str, PodView]] = {}
        self._events_of: OrderedDict[str, OrderedDict[str, EventView]] = OrderedDict()
        self._waiting: dict[SessionId, set[asyncio.Event]] = {}

    @property
    def feeds(self) -> tuple[Feed[Record], Feed[DeploymentView], Feed[PodView]]:
        return self.sessions, self.deployments, self.pods

    async def wait_current(self) -> None:
        """Until everything there is has been read once."""
        for feed in self.feeds:
            await feed.current.wait()

    def trouble(self) -> str | None:
        """Why the picture may be an old one."""
        return next((feed.trouble for feed in self.feeds if feed.trouble), None)

    def record(self, session: SessionId) -> Record | None:
        return self.sessions.get(session)

    def snapshot(self, session: SessionId) -> Snapshot:
        pods = tuple(self._pods_of.get(session, {}).values())
        return Snapshot(
            session,
            self.sessions.get(session),
            self.deployments.get(session),
            pods,
            tuple(event for pod in pods for event in self._events_of.get(pod.name, {}).values()),
        )

    @contextlib.contextmanager
    def following(self, session: SessionId) -> Iterator[asyncio.Event]:
        """An event that is set with each change about the session; clear it to wait anew."""
        changed = asyncio.Event()
        listeners = self._waiting.setdefault(session, set())
        listeners.add(changed)
        try:
            yield changed
        finally:
            listeners.discard(changed)
            if not listeners and self._waiting.get(session) is listeners:
                del self._waiting[session]

    def _record_changed(self, record: Record, there: bool) -> None:
        self._changed(record.session)

    def _deployment_changed(self, deployment: DeploymentView, there: bool) -> None:
        self._changed(deployment.session)

    def _pod_changed(self, pod: PodView, there: bool) -> None:
        pods = self._pods_of.setdefault(pod.session, {})
        if there:
            pods[pod.name] = pod
        else:
            pods.pop(pod.name, None)
            self._events_of.pop(pod.name, None)
        if not pods:
            del self._pods_of[pod.session]
        self._changed(pod.session)

    def _event_came(self, event: EventView) -> None:
        events = self._events_of.setdefault(event.about, OrderedDict())
        self._events_of.move_to_end(event.about)
        events[event.key] = event
        while len(events) > _EVENTS_KEPT:
            events.popitem(last=False)
        while len(self._events_of) > _EVENTFUL_PODS:
            self._events_of.popitem(last=False)
        # An event may be quicker than its pod, which then brings it to notice.
        pod = self.pods.get(event.about)
        if pod is not None:
            self._changed(pod.session)

    def _changed(self, session: SessionId) -> None:
        for waiting in self._waiting.get(session, ()):
            waiting.set()
        self.on_change(session)


def _seconds(turn: float) -> int:
    """Not all watches end at the same moment."""
    return max(1, round(turn * random.uniform(0.8, 1.0)))


def _number(version: str | None) -> int:
    """Versions of one kind are in order, as numbers (Kubernetes promises so since 1.35)."""
    return int(version) if version and version.isdecimal() else 0
