"""Events, taken in batches: what agents report, what catalogs hold, who is active.

A batch is one transaction: its message ids go to the inbox, its sessions are locked
together, each event meets its session's state, and all changes are kept and told at
once. Under load this costs a fraction of one transaction per event. The events of one
session keep their order within a batch, each meeting what the one before it made.
A removed cluster may take many sessions with it, so its event is acted on by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby

from streamspace_common.contracts.events import (
    AgentEvent,
    ClusterEnrolled,
    ClusterRemoved,
    ClusterRevoked,
    Event,
    SessionActivity,
    TemplatePublished,
    TemplateWithdrawn,
    UserChanged,
)
from streamspace_common.contracts.ids import SessionId
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.tracing import tracing
from streamspace_session import metrics
from streamspace_session.domain import Change, IllegalTransitionError, Timing, Tracked, report
from streamspace_session.handlers.effects import carry_out
from streamspace_session.handlers.removal import Removal
from streamspace_session.ports import Durables, Store, Transaction

log = get_logger(__name__)

MAX_MANIFEST = 48 * 1024
"""Bytes. A start command carries the manifest and must fit the command stream's 64 KiB."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """An event with its place in the stream and the trace it belongs to."""

    event: Event
    sequence: int
    traceparent: str | None = None


class EventIntake:
    """Acts on everything the session service listens to."""

    def __init__(self, store: Store, durables: Durables, removal: Removal, timing: Timing) -> None:
        self._store = store
        self._durables = durables
        self._removal = removal
        self._timing = timing

    async def take(self, batch: Sequence[Incoming]) -> None:
        """Give every event of the batch its effect, once, whenever it comes again.

        Raises:
            ProblemError: `service-unavailable`; give the batch again, and what has had its
                effect already will not have it twice.
            BusError: the same.
        """
        for removed, part in groupby(batch, lambda one: isinstance(one.event, ClusterRemoved)):
            if not removed:
                await self._take(list(part))
                continue
            for one in part:
                await self._remove(one)

    async def _remove(self, one: Incoming) -> None:
        if isinstance(one.event, ClusterRemoved):
            with tracing(one.traceparent):
                await self._removal.act(one.event, one.sequence)

    async def _take(self, batch: Sequence[Incoming]) -> None:
        async with self._store.transaction() as tx:
            fresh = await tx.first_times(one.event.id for one in batch)
            new = _unrepeated(batch, fresh)
            changes = await self._reports(tx, new)
            await self._projections(tx, new)
            changed = await carry_out(tx, changes)
        metrics.count(changed)

    async def _reports(self, tx: Transaction, batch: Sequence[Incoming]) -> list[Change]:
        reports = [(one, one.event) for one in batch if isinstance(one.event, AgentEvent)]
        if not reports:
            return []
        sessions = await tx.sessions.lock({event.session_id for _, event in reports})
        now = await tx.now()
        changes: dict[SessionId, tuple[Change, ...]] = {}
        for incoming, event in reports:
            tracked = sessions.get(event.session_id)
            if tracked is None:
                # An agent that still holds what we never knew shows it in its inventory.
                log.info("report.unknown_session", session_id=event.session_id, type=event.TYPE)
                continue
            change = self._apply(tracked, event, incoming.traceparent, now)
            if change.is_empty:
                continue
            sessions[event.session_id] = change.after
            *earlier, last = changes.get(event.session_id, (None,))
            joined = (change,) if last is None else last.then(change)
            changes[event.session_id] = (*earlier, *joined)
        return [change for several in changes.values() for change in several]

    def _apply(
        self, tracked: Tracked, event: AgentEvent, trace: str | None, now: datetime
    ) -> Change:
        with tracing(trace):
            try:
                change = report(tracked, event, now=now, timing=self._timing)
            except IllegalTransitionError as error:
                log.warning(
                    "report.ignored",
                    session_id=tracked.session.id,
                    type=event.TYPE,
                    generation=event.generation,
                    reason=str(error),
                )
                return Change(tracked, tracked)
        return change if change.is_empty else replace(change, trace=trace)

    async def _projections(self, tx: Transaction, batch: Sequence[Incoming]) -> None:
        activity: dict[SessionId, timedelta] = {}
        for one in batch:
            match one.event:
                case SessionActivity(idle_seconds=float(idle)) as seen:
                    activity[seen.session_id] = timedelta(seconds=idle)
                case TemplatePublished() as published:
                    await tx.templates.publish(published, one.sequence, _unusable(published))
                case TemplateWithdrawn() as withdrawn:
                    await tx.templates.withdraw(withdrawn, one.sequence)
                case UserChanged() as account:
                    await tx.accounts.keep(account, one.sequence)
                case ClusterEnrolled() as enrolled:
                    await self._enrol(tx, enrolled, one.sequence)
                case ClusterRevoked() as revoked:
                    await tx.access.revoke(revoked, one.sequence)
                case _:
                    pass
        if activity:
            await tx.sessions.touch(activity)

    async def _enrol(self, tx: Transaction, event: ClusterEnrolled, sequence: int) -> None:
        """Let a cluster in, with a consumer for its agents."""
        cluster = event.cluster_id
        known = await tx.clusters.exists(cluster)
        await tx.access.enrol(event, sequence)
        if not await tx.clusters.exists(cluster):
            # It has been removed since.
            return
        # Before the commit: if it fails, the event comes again.
        if not known:
            # What a removed one of its name left in the stream is not for this one.
            await self._durables.clear(cluster)
        await self._durables.ensure(cluster)


def _unrepeated(batch: Sequence[Incoming], fresh: set[str]) -> list[Incoming]:
    seen: set[str] = set()
    new = []
    for one in batch:
        if one.event.id in fresh and one.event.id not in seen:
            seen.add(one.event.id)
            new.append(one)
    return new


def _unusable(event: TemplatePublished) -> str | None:
    if event.unusable is not None:
        return event.unusable
    size = len(event.manifest.model_dump_json())
    if size > MAX_MANIFEST:
        return f"its manifest has {size} bytes, {MAX_MANIFEST} is the most a command can carry"
    return None
