"""The kubernetes runtime: each session is a Deployment of one pod.

Who may touch a session is ruled by its `Session` resource (see `records`): the generation
is written there first, then the work is done, and the outcome is written back only while
no newer generation is there. Whoever finds one undoes what it did by making the session
what the newest record says. Replicas of the agent need nothing else between them; within
one agent a lock per session keeps commands and repairs apart.

What is running and what has changed is read from the picture (see `watching`), which one
watch per kind keeps current for all sessions.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any, Final

from streamspace_agent.domain import Observed
from streamspace_agent.ports import (
    PermanentFailure,
    ReportPhase,
    RuntimeFailure,
    SessionUnreachable,
    Superseded,
)
from streamspace_agent.runtimes.cleanup import undisturbed
from streamspace_agent.runtimes.kubernetes import dial, judgement, manifests, outcomes
from streamspace_agent.runtimes.kubernetes.api import ClusterApi
from streamspace_agent.runtimes.kubernetes.bringup import BringUp
from streamspace_agent.runtimes.kubernetes.errors import ApiError, ForbiddenError
from streamspace_agent.runtimes.kubernetes.keeper import Keeper, Locks
from streamspace_agent.runtimes.kubernetes.nodes import Nodes
from streamspace_agent.runtimes.kubernetes.options import KubernetesOptions, Tunnel
from streamspace_agent.runtimes.kubernetes.records import Records
from streamspace_agent.runtimes.kubernetes.removal import Removal
from streamspace_agent.runtimes.kubernetes.transport import CHANNEL_LOST
from streamspace_agent.runtimes.kubernetes.views import PodView, Record, RecordPhase, Status
from streamspace_agent.runtimes.kubernetes.watching import Picture
from streamspace_common.contracts.catalog import Protocol, RuntimeKind
from streamspace_common.contracts.clusters import Capacity, ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState, Phase, Reason, SessionSpec
from streamspace_common.relay.pump import Leg
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.supervisor import FatalError

log = get_logger(__name__)

_PROBE_TIMEOUT: Final = 2.0
_DIAL_TIMEOUT: Final = 5.0
_CATCH_UP: Final = 1.0
"""Seconds a session that was started elsewhere may take to be seen here."""
_SAY_WAITING: Final = 10.0


class KubernetesRuntime:
    """A `Runtime` of one namespace of a Kubernetes cluster."""

    kind = RuntimeKind.KUBERNETES

    def __init__(self, options: KubernetesOptions) -> None:
        self._options = options
        self._api = ClusterApi(options.access, options.pods.namespace)
        self._picture = Picture(self._api, options.watch_turn)
        self._records = Records(self._api, self._picture, options.pods)
        self._bringup = BringUp(self._api, self._picture, options, self._answers)
        self._removal = Removal(self._api, self._picture, options)
        self._locks = Locks()
        self._keeper = Keeper(
            self._api,
            self._picture,
            self._records,
            self._bringup,
            self._removal,
            self._locks,
            options,
        )
        self._nodes = Nodes(self._api, options)
        self._sweep_now = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # Taking over and letting go

    async def open(self) -> None:
        try:
            await self._api.open()
        except ApiError as error:
            raise FatalError(f"{error} Set STREAMSPACE_AGENT_KUBECONFIG.") from error
        for feed in self._picture.feeds:
            self._background(feed.run())
        self._background(self._picture.events.run())
        await self._until_current()
        self._picture.on_change = self._keeper.look
        await self._nodes.refresh()
        for record in tuple(self._picture.sessions.all()):
            if record.status.phase is RecordPhase.SUSPENDED:
                self._background(self._keeper.resume(record.session))
            self._keeper.look(record.session)
        self._sweep_now.set()
        self._background(self._keep_sweeping())

    async def close(self, *, stop_sessions: bool) -> None:
        if stop_sessions:
            up = [o.session_id for o in self._observed() if o.state is ResourceState.RUNNING]
            await asyncio.gather(*(self._suspend(session) for session in up))
        self._picture.on_change = _ignore_change
        await self._keeper.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await dial.wait_carried()
        await self._api.close()

    async def _until_current(self) -> None:
        """Without the whole picture, sessions that run would be reported missing."""
        current = asyncio.create_task(self._picture.wait_current())
        try:
            while not (await asyncio.wait({current}, timeout=_SAY_WAITING))[0]:
                log.warning("waiting for the cluster", trouble=self._picture.trouble())
        finally:
            current.cancel()

    async def _suspend(self, session: SessionId) -> None:
        try:
            async with self._locks.of(session):
                record = self._picture.record(session)
                spec = record.spec() if record is not None else None
                if record is None or spec is None or record.status.phase is not RecordPhase.RUNNING:
                    return
                suspended = replace(record.status, phase=RecordPhase.SUSPENDED)
                record = await self._records.settle(record, suspended)
                await self._bringup.rest(record, spec)
                await self._removal.wait_no_pods(session)
        except (ApiError, RuntimeFailure) as error:
            log.warning("not suspended", session=session, error=str(error))

    # What is there

    async def observe(self, session: SessionId) -> Observed | None:
        return judgement.observed(self._picture.snapshot(session))

    async def inventory(self) -> tuple[Observed, ...]:
        return self._observed()

    async def watch(self) -> AsyncIterator[Observed]:
        while True:
            yield await self._keeper.deaths.get()

    async def capacity(self) -> Capacity:
        return self._nodes.capacity

    async def trouble(self) -> str | None:
        return self._picture.trouble()

    def _observed(self) -> tuple[Observed, ...]:
        seen = (
            judgement.observed(self._picture.snapshot(record.session))
            for record in self._picture.sessions.all()
        )
        return tuple(each for each in seen if each is not None and each.state is not None)

    # Bringing about what is wanted

    async def ensure_running(
        self, spec: SessionSpec, generation: int, report_phase: ReportPhase
    ) -> None:
        if not spec.template_manifest.spec.base_image:
            raise PermanentFailure(
                Reason.UNSUPPORTED_TEMPLATE,
                "The template names no image, and this cluster runs nothing else.",
            )
        async with self._fenced(spec.session_id, generation, DesiredState.RUNNING, spec) as record:
            if judgement.is_alive(self._picture.snapshot(spec.session_id)):
                # Its pod is not touched: only the generation is another.
                await self._records.settle(record, replace(record.status, generation=generation))
                return
            try:
                with outcomes.translated():
                    await self._start(record, spec, report_phase)
            except BaseException as error:
                await undisturbed(self._undo(record, spec, error))
                raise

    async def ensure_hibernated(self, spec: SessionSpec, generation: int) -> None:
        session = spec.session_id
        async with self._fenced(session, generation, DesiredState.HIBERNATED, spec) as record:
            if record.settled:
                return
            try:
                was = record.status
                resting_record = await self._records.settle(
                    record, replace(was, phase=RecordPhase.HIBERNATING, generation=generation)
                )
                resting = await self._bringup.rest(resting_record, spec)
                if resting.deleting:
                    await self._bringup.wait_gone(session, resting.uid)
                else:
                    await self._removal.wait_no_pods(session)
                await self._records.settle(resting_record, outcomes.hibernated(generation, was))
            except Superseded:
                await undisturbed(self._conform(session))
                raise

    async def ensure_absent(
        self, session: SessionId, generation: int, *, delete_home: bool
    ) -> None:
        async with self._fenced(
            session, generation, DesiredState.TERMINATED, delete_home=delete_home
        ) as record:
            if record.settled:
                return
            try:
                was = record.status
                ending = await self._records.settle(
                    record, replace(was, phase=RecordPhase.TERMINATING, generation=generation)
                )
                await self._removal.remove(session, generation)
                if delete_home:
                    await self._removal.delete_home(ending)
                await self._records.settle(ending, outcomes.terminated(generation, was))
            except Superseded:
                await undisturbed(self._conform(session))
                raise

    async def dial(self, session: SessionId, port: int) -> Leg:
        pod, spec = await self._running_pod(session)
        offered = manifests.ports_of(spec.template_manifest)
        if port not in offered:
            # Only what the template declares, not whatever else runs in the pod.
            raise SessionUnreachable(f"The session does not offer port {port}.")
        connection = manifests.connection_of(spec.template_manifest)
        speaks_first = connection.protocol is Protocol.VNC and port == connection.port
        return await self._connect(pod, port, speaks_first=speaks_first, timeout=_DIAL_TIMEOUT)

    @contextlib.asynccontextmanager
    async def _fenced(
        self,
        session: SessionId,
        generation: int,
        wanted: DesiredState,
        spec: SessionSpec | None = None,
        *,
        delete_home: bool = False,
    ) -> AsyncIterator[Record]:
        """Write the generation, then be the only one of this agent to work on the session.

        Raises:
            Superseded: a newer one is there, or came while we waited.
        """
        try:
            with outcomes.translated():
                await self._records.raise_to(
                    session, generation, wanted, spec, delete_home=delete_home
                )
                async with self._locks.of(session):
                    # Again: who had the lock may have taken this very generation back.
                    yield await self._records.raise_to(
                        session, generation, wanted, spec, delete_home=delete_home
                    )
        finally:
            self._keeper.look(session)

    async def _start(self, record: Record, spec: SessionSpec, report_phase: ReportPhase) -> None:
        starting = Status(
            phase=RecordPhase.STARTING,
            generation=record.generation,
            hibernated_at=record.status.hibernated_at,
        )
        record = await self._records.settle(record, starting)
        applied = await self._bringup.apply(record, spec, replicas=1)
        up = await self._bringup.wait_up(record, spec, applied, report_phase)
        await self._records.settle(record, outcomes.running(record, up))
        report_phase(Phase.READY)

    async def _undo(self, record: Record, spec: SessionSpec, error: BaseException) -> None:
        """As if the start had never begun: a session at rest is at rest again."""
        reason, message = outcomes.told(error)
        rested = record.status.hibernated_at
        try:
            if isinstance(error, Superseded):
                await self._conform(record.session)
            elif rested:
                await self._bringup.rest(record, spec)
                await self._removal.wait_no_pods(record.session)
                status = Status(
                    RecordPhase.HIBERNATED, record.generation, reason, message, hibernated_at=rested
                )
                await self._records.withdraw(record, DesiredState.HIBERNATED, status)
            else:
                await self._removal.remove(record.session, record.generation)
                status = Status(
                    RecordPhase.FAILED,
                    record.generation,
                    reason,
                    message,
                    terminated_at=outcomes.moment(),
                )
                await self._records.withdraw(record, DesiredState.TERMINATED, status)
        except Superseded:
            await self._conform(record.session)
        except (ApiError, RuntimeFailure) as failure:
            # The record stays unsettled: the command comes again, or a newer one.
            log.warning("a start is not undone yet", session=record.session, error=str(failure))

    async def _conform(self, session: SessionId) -> None:
        """Make the session what its newest record says, after we may have done otherwise."""
        try:
            newest = await self._records.read(session)
            spec = newest.spec() if newest is not None else None
            if newest is None:
                return
            if newest.wanted is DesiredState.TERMINATED:
                await self._removal.remove(session, newest.generation)
            elif spec is not None and newest.wanted is DesiredState.HIBERNATED:
                await self._bringup.rest(newest, spec)
            elif spec is not None and not newest.is_dead:
                await self._bringup.apply(newest, spec, replicas=1)
        except (ApiError, RuntimeFailure) as failure:
            # Whoever works on the newest generation, or the keepers, see to it.
            log.warning("not made to conform", session=session, error=str(failure))

    # Streams

    async def _running_pod(self, session: SessionId) -> tuple[PodView, SessionSpec]:
        """The pod of a session that runs; another agent may have started it just now."""
        with self._picture.following(session) as changed, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP):
                while True:
                    changed.clear()
                    snapshot = self._picture.snapshot(session)
                    record, pod = snapshot.record, snapshot.pod
                    if (
                        record is None
                        or record.is_dead
                        or record.wanted is not DesiredState.RUNNING
                    ):
                        break
                    spec = record.spec()
                    if spec is not None and pod is not None and judgement.may_answer(snapshot):
                        return pod, spec
                    await changed.wait()
        raise SessionUnreachable(judgement.why_not_up(self._picture.record(session)))

    async def _answers(self, pod: PodView, spec: SessionSpec) -> bool:
        """Whether the session's own server answers; what serves HTTP the kubelet has asked."""
        connection = manifests.connection_of(spec.template_manifest)
        if connection.protocol is Protocol.HTTP:
            return True
        try:
            leg = await self._connect(
                pod, connection.port, speaks_first=True, timeout=_PROBE_TIMEOUT
            )
        except SessionUnreachable as error:
            if isinstance(error.__cause__, ForbiddenError):
                raise PermanentFailure(
                    Reason.START_FAILED, f"The agent may not forward ports: {error.__cause__}"
                ) from error
            return False
        return await dial.greet(leg, _PROBE_TIMEOUT)

    async def _connect(self, pod: PodView, port: int, *, speaks_first: bool, timeout: float) -> Leg:
        if self._dials_pods:
            return await dial.connect_pod(pod.ip or "", port, timeout=timeout)
        try:
            async with asyncio.timeout(timeout):
                channel = await self._api.port_forward(pod.name, port)
            forward = dial.PortForward(channel, CHANNEL_LOST)
            return await forward.connect(server_speaks_first=speaks_first, timeout=timeout)
        except (ApiError, dial.PodRefusedError, TimeoutError) as error:
            raise SessionUnreachable(f"The session does not answer: {error}.") from error

    @property
    def _dials_pods(self) -> bool:
        chosen = self._options.tunnel
        return chosen is Tunnel.POD or (chosen is Tunnel.AUTO and self._api.in_cluster)

    # Time passing

    async def _keep_sweeping(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.sweep_interval):
                    await self._sweep_now.wait()
            self._sweep_now.clear()
            try:
                await self._keeper.sweep()
                await self._nodes.refresh()
            except (ApiError, RuntimeFailure) as error:
                log.warning("not swept", error=str(error))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _ignore_change(_session: SessionId) -> None:
    """Nobody looks any more."""
