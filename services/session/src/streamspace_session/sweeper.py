"""What happens because time passes: deadlines, silence, idleness, and forgetting.

One cheap question each round says whether anything is due at all. Work is taken in
small transactions with rows that other replicas hold skipped, so any number of
replicas may sweep at once, and a crash in the middle loses nothing: what is due
stays due.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.sessions import Reason
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.logging import get_logger
from streamspace_session import domain, metrics
from streamspace_session.domain import SYSTEM, Change, Timing, Tracked
from streamspace_session.handlers.burial import PATIENCE, move
from streamspace_session.handlers.effects import carry_out
from streamspace_session.handlers.presence import Presences
from streamspace_session.policy import deadlines, placement
from streamspace_session.policy.placement import NoClusterError, Overcommit, requirement
from streamspace_session.policy.quantities import Demand
from streamspace_session.ports import (
    Durables,
    IdTakenError,
    Listening,
    Retention,
    Store,
    Transaction,
)

log = get_logger(__name__)

BATCH = 100
"""Sessions per transaction: few enough that nobody waits long for their locks."""
_PRUNE_EVERY = 600.0
_LOOK_EVERY = 2.0
_UNHEARD = timedelta(seconds=1)
"""An agent that takes a command says so at once; one that has not by now hangs, or is away."""


class Sweeper:
    """Runs for ever under the supervisor.

    Args:
        store: the database.
        presences: judges clusters that have gone silent.
        durables: says how far clusters' agents have come.
        timing: the deadlines.
        overcommit: for sessions that are placed late.
        retention: how long to remember what nobody needs for ever.
        interval: seconds between rounds.
        offline_after: silence after which an agent counts as gone.
        listening: for how long heartbeats could be heard without interruption. After
            an outage of our own, clusters get the full time to be heard again.
        clock: for the pace of rare work.
    """

    def __init__(
        self,
        store: Store,
        presences: Presences,
        durables: Durables,
        *,
        timing: Timing,
        overcommit: Overcommit,
        retention: Retention,
        interval: float,
        offline_after: timedelta,
        listening: Listening,
        clock: Clock,
    ) -> None:
        self._store = store
        self._presences = presences
        self._durables = durables
        self._timing = timing
        self._overcommit = overcommit
        self._retention = retention
        self._interval = interval
        self._offline_after = offline_after.total_seconds()
        self._listening = listening
        self._clock = clock
        self._woken = asyncio.Event()
        self._postponed = False
        self._database_since = clock.monotonic()
        self._prune_at = clock.monotonic() + _PRUNE_EVERY
        self._look_at = clock.monotonic()

    def wake(self) -> None:
        """Something may be due now; do not wait for the next round."""
        self._woken.set()

    async def run(self) -> None:
        """Sweep for ever, through outages of the database."""
        while True:
            self._woken.clear()
            try:
                await self.sweep()
                self._postponed = False
            except ProblemError as error:
                # Heartbeats could not be kept either: silence says nothing about them.
                self._database_since = self._clock.monotonic()
                if not self._postponed:
                    log.warning("sweep.postponed", reason=error.problem.detail)
                self._postponed = True
            except IdTakenError:
                continue
            try:
                async with asyncio.timeout(self._interval):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def sweep(self) -> None:
        """One round."""
        now = self._clock.monotonic()
        if min(self._listening(), now - self._database_since) >= self._offline_after:
            await self._presences.silent()
        async with self._store.transaction() as tx:
            due = await tx.sessions.due(PATIENCE)
        if due.unplaced:
            await self._place_waiting()
        if due.out_of_sight:
            await self._until_done(self._lose_sight)
        if due.overdue:
            await self._until_done(self._overdue)
        if due.aged:
            await self._until_done(self._aged)
        if due.letters:
            await self._move_letters()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            await self._see_deliveries()
        await self._rarely(now)

    async def _until_done(self, step: Callable[[Transaction], Awaitable[list[Change]]]) -> None:
        while True:
            async with self._store.transaction() as tx:
                changes = await step(tx)
                changed = await carry_out(tx, changes)
            metrics.count(changed)
            if len(changes) < BATCH or not changed:
                return

    async def _lose_sight(self, tx: Transaction) -> list[Change]:
        lost = await tx.sessions.lock_out_of_sight(BATCH)
        if not lost:
            return []
        now, revoked = await tx.now(), await tx.access.revoked()
        return [
            domain.lose_sight(
                one, now=now, timing=self._timing, revoked=one.session.cluster_id in revoked
            )
            for one in lost
        ]

    async def _overdue(self, tx: Transaction) -> list[Change]:
        return [await self._judge(tx, one) for one in await tx.sessions.lock_overdue(BATCH)]

    async def _judge(self, tx: Transaction, tracked: Tracked) -> Change:
        now, timing = await tx.now(), self._timing
        live = await tx.clusters.is_live(tracked.session.cluster_id)
        verdict = deadlines.overdue(tracked, now, cluster_live=live, timing=timing)
        log.info("deadline.passed", session_id=tracked.session.id, verdict=repr(verdict))
        match verdict:
            case deadlines.Extend(until=until):
                return domain.extend(tracked, until, now=now)
            case deadlines.Reissue():
                return domain.reissue(tracked, now=now, timing=timing)
            case deadlines.GiveUpDeletion():
                return domain.give_up_deletion(tracked, now=now, timing=timing)
            case deadlines.Fail(reason=reason, message=message):
                return domain.fail(tracked, reason, message, now=now, timing=timing)

    async def _aged(self, tx: Transaction) -> list[Change]:
        aged = await tx.sessions.lock_aged(BATCH)
        now = await tx.now()
        return [_end_of_use(one, now=now, timing=self._timing) for one in aged]

    async def _place_waiting(self) -> None:
        async with self._store.transaction() as tx:
            waiting = await tx.sessions.lock_unplaced(BATCH)
            # Each is kept before the next is chosen for, which then sees the room taken.
            for one in waiting:
                await self._place(tx, one)

    async def _place(self, tx: Transaction, tracked: Tracked) -> None:
        session = tracked.session
        manifest = await tx.templates.manifest(session.template_id, session.template_digest)
        need = requirement(
            manifest, Demand(tracked.cpu_milli, tracked.memory_bytes), tracked.wanted_cluster
        )
        candidates = await tx.clusters.candidates()
        try:
            cluster = placement.choose(candidates, need, self._overcommit)
        except NoClusterError as error:
            log.debug("placement.waits", session_id=session.id, reason=str(error))
            return
        if cluster is None:
            return
        runtime = next(c.runtime for c in candidates if c.id == cluster)
        protocol = domain.reach(manifest, runtime).protocol
        change = domain.place(tracked, cluster, protocol, now=await tx.now(), timing=self._timing)
        await carry_out(tx, [change])

    async def _move_letters(self) -> None:
        """Send the copies of dead letters for whose advisory nobody waits any longer."""
        async with self._store.transaction() as tx:
            for buried in await tx.letters.unmoved(PATIENCE, BATCH):
                await move(tx, buried)

    async def _see_deliveries(self) -> None:
        """Find out which waiting commands an agent has taken without a word."""
        async with self._store.transaction() as tx:
            clusters = await tx.sessions.waiting_clusters(_UNHEARD)
        for cluster in clusters:
            try:
                sequence = await self._durables.delivered(cluster)
            except ProblemError as error:
                log.debug("deliveries.unknown", cluster_id=cluster, reason=error.problem.detail)
                return
            async with self._store.transaction() as tx:
                taken = await tx.sessions.lock_delivered(cluster, sequence, BATCH)
                now = await tx.now()
                await carry_out(tx, [domain.delivered(one, now=now) for one in taken])

    async def _rarely(self, now: float) -> None:
        if now >= self._prune_at:
            self._prune_at = now + _PRUNE_EVERY
            async with self._store.transaction() as tx:
                await tx.prune(self._retention)
            await self.forget_ended()

    async def forget_ended(self) -> None:
        """Remove sessions that ended long ago, a few at a time."""
        gone = BATCH
        while gone == BATCH:
            async with self._store.transaction() as tx:
                gone = await tx.sessions.forget_ended(self._retention.ended, BATCH)
            metrics.FORGOTTEN.inc(gone)


def _end_of_use(tracked: Tracked, *, now: datetime, timing: Timing) -> Change:
    """Past its longest duration a session ends; idle for too long, it goes to rest."""
    ends = tracked.session.max_duration
    began = tracked.session.started_at or tracked.session.created_at
    if ends is not None and began + timedelta(seconds=ends) <= now:
        return domain.delete(
            tracked, actor=SYSTEM, now=now, timing=timing, reason=Reason.MAX_DURATION
        )
    return domain.hibernate(tracked, actor=SYSTEM, now=now, timing=timing, reason=Reason.IDLE)
