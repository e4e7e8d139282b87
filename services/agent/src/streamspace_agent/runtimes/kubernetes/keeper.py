"""Looks after sessions that nobody has a command for: what changed by itself.

Each change of the picture is judged; where something is to be done, it is judged once
more after a moment (watches of different kinds are not in step) with the record freshly
read, under the session's lock. Every agent of the cluster does so: repairs are the same
whoever makes them, and a death has the same event id whoever tells it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from streamspace_agent.domain import Observed
from streamspace_agent.ports import PassingFailure, PermanentFailure, Superseded
from streamspace_agent.runtimes.kubernetes import judgement, kinds, outcomes
from streamspace_agent.runtimes.kubernetes.api import ClusterApi
from streamspace_agent.runtimes.kubernetes.bringup import BringUp, Up
from streamspace_agent.runtimes.kubernetes.errors import ApiError
from streamspace_agent.runtimes.kubernetes.judgement import Died, Remove, Repair, Verdict
from streamspace_agent.runtimes.kubernetes.options import KubernetesOptions
from streamspace_agent.runtimes.kubernetes.records import Records
from streamspace_agent.runtimes.kubernetes.removal import Removal
from streamspace_agent.runtimes.kubernetes.views import Record, RecordPhase
from streamspace_agent.runtimes.kubernetes.watching import Picture
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState, Phase, SessionSpec
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_SECOND_LOOK: Final = 0.3
_TRY_AGAIN: Final = 2.0


class Locks:
    """One lock per session, and who waits is known."""

    def __init__(self) -> None:
        self._locks: dict[SessionId, asyncio.Lock] = {}

    def of(self, session: SessionId) -> asyncio.Lock:
        return self._locks.setdefault(session, asyncio.Lock())

    def is_held(self, session: SessionId) -> bool:
        lock = self._locks.get(session)
        return lock is not None and lock.locked()

    def prune(self, keep: Callable[[SessionId], bool]) -> None:
        for session in [s for s, lock in self._locks.items() if not lock.locked()]:
            if not keep(session):
                del self._locks[session]


class Keeper:
    """Repairs, removes and reports what changed by itself."""

    def __init__(
        self,
        api: ClusterApi,
        picture: Picture,
        records: Records,
        bringup: BringUp,
        removal: Removal,
        locks: Locks,
        options: KubernetesOptions,
    ) -> None:
        self._api = api
        self._picture = picture
        self._records = records
        self._bringup = bringup
        self._removal = removal
        self._locks = locks
        self._options = options
        self._tasks: dict[SessionId, asyncio.Task[None]] = {}
        self._told: set[tuple[SessionId, str]] = set()
        self.deaths: asyncio.Queue[Observed] = asyncio.Queue()
        """The dead, each once, whichever agent found out."""

    def look(self, session: SessionId) -> None:
        """Judge a session about which something changed; must not block."""
        snapshot = self._picture.snapshot(session)
        if snapshot.record is not None:
            self._tell_death(snapshot.record)
        if self._locks.is_held(session) or session in self._tasks:
            return
        if judgement.judge(snapshot, self._options.on_drift) is not None:
            self._begin(session)

    async def resume(self, session: SessionId) -> None:
        """Bring a session back that ended with the last agent."""
        try:
            async with self._locks.of(session):
                record = await self._records.read(session)
                if record is not None and record.status.phase is RecordPhase.SUSPENDED:
                    await self._repair(record, Repair("It ended with its agent.", apply=True))
        except (Superseded, PassingFailure, ApiError, TimeoutError) as error:
            log.warning("could not resume", session=session, error=str(error))

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def sweep(self) -> None:
        """Find what no watch tells: strangers, missing protection, records out of date."""
        services, _ = await self._api.list(kinds.SERVICE, kinds.OURS)
        policies, _ = await self._api.list(kinds.NETWORK_POLICY, kinds.OURS)
        names = {each["metadata"]["name"] for each in services}
        protected = {each["metadata"]["name"] for each in policies}
        for name in sorted(
            names | protected | {d.session for d in self._picture.deployments.all()}
        ):
            await self._remove_stranger(SessionId(name))
        for record in tuple(self._picture.sessions.all()):
            self.look(record.session)
            if self._is_forgettable(record):
                await self._records.forget(record)
            elif (
                record.settled
                and self._should_have_service(record)
                and not (record.session in names and record.session in protected)
            ):
                await self._protect_again(record)
        self._locks.prune(lambda session: self._picture.record(session) is not None)
        self._told = {mark for mark in self._told if self._picture.record(mark[0]) is not None}

    # One session

    def _begin(self, session: SessionId) -> None:
        task = asyncio.create_task(self._see_to(session), name=f"keeper:{session}")
        self._tasks[session] = task
        task.add_done_callback(lambda _task: self._ended(session))

    def _ended(self, session: SessionId) -> None:
        task = self._tasks.pop(session)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("keeping failed unexpectedly", session=session, exc_info=error)

    async def _see_to(self, session: SessionId) -> None:
        while True:
            await asyncio.sleep(_SECOND_LOOK)
            try:
                async with self._locks.of(session):
                    await self._records.read(session)
                    snapshot = self._picture.snapshot(session)
                    verdict = judgement.judge(snapshot, self._options.on_drift)
                    if verdict is None or snapshot.record is None:
                        return
                    await self._carry_out(snapshot.record, verdict)
            except Superseded:
                return
            except (PassingFailure, ApiError, TimeoutError) as error:
                log.warning("not put right yet", session=session, error=str(error))
                await asyncio.sleep(_TRY_AGAIN)

    async def _carry_out(self, record: Record, verdict: Verdict) -> None:
        match verdict:
            case Remove():
                log.info("removing what should not be there", session=record.session)
                await self._removal.remove(record.session, record.generation)
            case Died():
                await self._bury(record, verdict)
            case Repair():
                await self._repair(record, verdict)

    async def _repair(self, record: Record, verdict: Repair) -> None:
        spec = record.spec()
        if spec is None:
            return
        log.warning("repairing a session", session=record.session, why=verdict.why)
        if record.wanted is DesiredState.HIBERNATED:
            await self._bringup.rest(record, spec)
            await self._removal.wait_no_pods(record.session)
            return
        try:
            up = await self.bring_back(record, spec, verdict.why, apply=verdict.apply)
        except PermanentFailure as failure:
            incarnation = f"{(record.status.pod_uid or '')[:13]}-{record.status.restarts}-lost"
            message = f"{verdict.why} It could not be brought back: {failure}"
            await self._bury(record, Died(failure.reason, message, incarnation))
            return
        log.info("session repaired", session=record.session, pod=up.pod.name)

    async def bring_back(self, record: Record, spec: SessionSpec, why: str, *, apply: bool) -> Up:
        """Make a session run again as its record says.

        Raises: as `BringUp.apply` and `BringUp.wait_up`.
        """
        recovering = replace(record.status, phase=RecordPhase.RECOVERING, message=why)
        if record.status != recovering:
            record = await self._records.settle(record, recovering)
        deployment = self._picture.deployments.get(record.session)
        if apply or deployment is None:
            deployment = await self._bringup.apply(record, spec, replicas=1)
            if deployment.foreign:
                # What somebody added is not ours to take out again: begin with a new one.
                await self._removal.remove(record.session, record.generation)
                deployment = await self._bringup.apply(record, spec, replicas=1)
        up = await self._bringup.wait_up(record, spec, deployment, _tell_nobody)
        await self._records.settle(record, outcomes.running(record, up))
        return up

    async def _bury(self, record: Record, died: Died) -> None:
        """Write the death down, then remove what is left."""
        snapshot = self._picture.snapshot(record.session)
        restarted = snapshot.pod is not None and snapshot.pod.restarts > record.status.restarts
        message = await self._bringup.last_words(died.log_of, died.message, previous=restarted)
        log.warning("desktop died", session=record.session, message=message)
        status = replace(
            record.status,
            phase=RecordPhase.FAILED,
            reason=died.reason,
            message=message,
            incarnation=died.incarnation,
            terminated_at=outcomes.moment(),
        )
        record = await self._records.settle(record, status)
        self._tell_death(record)
        await self._removal.remove(record.session, record.generation)

    def _tell_death(self, record: Record) -> None:
        death = judgement.dead(record)
        if death is None:
            return
        if (mark := (record.session, death.incarnation)) in self._told:
            return
        self._told.add(mark)
        observed = judgement.observed(self._picture.snapshot(record.session))
        if observed is not None:
            self.deaths.put_nowait(observed)

    # All of them

    async def _remove_stranger(self, session: SessionId) -> None:
        """Resources without a record: asked for freshly, as it may have just been made."""
        if self._picture.record(session) is not None or self._locks.is_held(session):
            return
        if await self._records.read(session) is None:
            log.warning("removing resources that belong to no session", session=session)
            try:
                await self._removal.remove(session, _ANY_GENERATION)
            except PassingFailure as failure:
                log.warning("not removed yet", session=session, error=str(failure))

    async def _protect_again(self, record: Record) -> None:
        spec = record.spec()
        if spec is None or self._locks.is_held(record.session):
            return
        log.warning("putting back a session's service and policy", session=record.session)
        async with self._locks.of(record.session):
            current = self._picture.record(record.session)
            if current is not None and current.settled and self._should_have_service(current):
                await self._bringup.serve(current, spec)

    def _should_have_service(self, record: Record) -> bool:
        return record.wanted is DesiredState.RUNNING and not record.is_dead

    def _is_forgettable(self, record: Record) -> bool:
        if record.wanted is not DesiredState.TERMINATED or not record.settled:
            return False
        ended = record.status.terminated_at or record.created_at
        if not ended:
            return False
        age = datetime.now(UTC) - datetime.fromisoformat(ended)
        return age.total_seconds() > self._options.records_kept


_ANY_GENERATION: Final = 2**62


def _tell_nobody(_phase: Phase, _message: str | None = None, *, ongoing: bool = False) -> None:
    """Who is brought back tells nobody of its phases."""
