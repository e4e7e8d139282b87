"""What agents say of themselves: heartbeats and inventories.

A heartbeat is core NATS: it may be lost, and nobody says it again but the next one.
The subject it came on proves whose it is, since only that cluster may publish there.
"""

from datetime import datetime, timedelta

from streamspace_common.contracts.clusters import Heartbeat, Inventory, Presence
from streamspace_common.contracts.commands import StopSession
from streamspace_common.contracts.events import ClusterPresenceChanged
from streamspace_common.contracts.ids import ClusterId, new_command_id, new_message_id
from streamspace_common.contracts.sessions import Reason
from streamspace_common.runtime.logging import get_logger
from streamspace_session import domain, metrics, reconcile
from streamspace_session.cluster_ports import ClusterRecord
from streamspace_session.domain import (
    SYSTEM,
    Change,
    IllegalTransitionError,
    Timing,
    Tracked,
)
from streamspace_session.handlers.effects import carry_out
from streamspace_session.policy.presence import live_agents, presence
from streamspace_session.ports import Store, Transaction

log = get_logger(__name__)


class Presences:
    """Keeps clusters' presence, and their sessions true to what their agents hold.

    Args:
        store: the database.
        timing: for re-issued commands and restarts.
        late_after: silence after which something is wrong with an agent.
        offline_after: silence after which it counts as gone.
        inventory_grace: sessions changed more recently are not compared.
    """

    def __init__(
        self,
        store: Store,
        timing: Timing,
        *,
        late_after: timedelta,
        offline_after: timedelta,
        inventory_grace: timedelta,
    ) -> None:
        self._store = store
        self._timing = timing
        self._late_after = late_after
        self._offline_after = offline_after
        self._grace = inventory_grace

    async def heartbeat(self, heartbeat: Heartbeat) -> Presence | None:
        """Take note of a heartbeat; the cluster's presence after it, None for a stranger's."""
        async with self._store.transaction() as tx:
            cluster = await tx.clusters.lock_one(heartbeat.cluster_id)
            if cluster is None:
                log.warning("presence.unknown_cluster", cluster_id=heartbeat.cluster_id)
                return None
            await tx.clusters.note(heartbeat)
            return await self.conclude(tx, cluster)

    async def silent(self) -> None:
        """Conclude which clusters are gone. Call only while heartbeats can be heard."""
        async with self._store.transaction() as tx:
            silent = await tx.clusters.lock_silent(self._late_after, self._offline_after)
            for cluster in silent:
                await self.conclude(tx, cluster)

    async def inventory(self, inventory: Inventory) -> None:
        """Compare what an agent holds with what we know, and put right what differs."""
        cluster = inventory.cluster_id
        async with self._store.transaction() as tx:
            if await tx.clusters.lock_one(cluster) is None:
                log.warning("presence.unknown_cluster", cluster_id=cluster)
                return
        async with self._store.transaction() as tx:
            sessions = await tx.sessions.lock_cluster(cluster, reconcile.named(inventory))
            decisions = reconcile.compare(
                cluster,
                inventory,
                sessions,
                await tx.now(),
                grace=self._grace,
                timing=self._timing,
            )
            changes = []
            for decision in decisions:
                log.info("inventory.decision", cluster_id=cluster, decision=repr(decision))
                if isinstance(decision, reconcile.StopStranger):
                    await self._stop_stranger(tx, cluster, decision)
                else:
                    changes.append(await self._change(tx, sessions[decision.session_id], decision))
            changed = await carry_out(tx, changes)
        metrics.count(changed)

    async def conclude(self, tx: Transaction, cluster: ClusterRecord) -> Presence:
        """Judge a locked cluster anew, and tell of it when its presence is another one."""
        now = await tx.now()
        live = live_agents(await tx.clusters.heard(cluster.id), now, self._offline_after)
        concluded = presence(live, now, self._late_after, drained=cluster.drained)
        await tx.clusters.conclude(cluster.id, concluded, live)
        if concluded is not cluster.presence:
            log.info(
                "presence.changed",
                cluster_id=cluster.id,
                was=cluster.presence,
                now=concluded,
            )
            tx.tell(
                ClusterPresenceChanged(
                    id=str(new_message_id()),
                    at=now,
                    actor=SYSTEM,
                    cluster_id=cluster.id,
                    from_presence=cluster.presence,
                    to_presence=concluded,
                )
            )
        return concluded

    async def _change(
        self, tx: Transaction, tracked: Tracked, decision: reconcile.Decision
    ) -> Change:
        try:
            return decided(tracked, decision, await tx.now(), self._timing)
        except IllegalTransitionError as error:
            log.warning("inventory.ignored", session_id=tracked.session.id, reason=str(error))
            return Change(tracked, tracked)

    async def _stop_stranger(
        self, tx: Transaction, cluster: ClusterId, decision: reconcile.StopStranger
    ) -> None:
        """Stop what no session of the cluster stands for; only the stream remembers it."""
        now = await tx.now()
        tx.send(
            StopSession(
                command_id=new_command_id(),
                session_id=decision.session_id,
                cluster_id=cluster,
                generation=decision.generation + 1,
                issued_at=now,
                deadline=now + self._timing.command_life,
                actor=SYSTEM,
            )
        )


def decided(
    tracked: Tracked, decision: reconcile.Decision, now: datetime, timing: Timing
) -> Change:
    """What a decision about one of our sessions makes of it.

    Raises:
        IllegalTransitionError: the session's state does not allow it any more.
    """
    match decision:
        case reconcile.Observe(trigger=trigger):
            change = domain.observed(tracked, trigger, now=now, timing=timing)
        case reconcile.SendAgain():
            change = domain.reissue(tracked, now=now, timing=timing)
        case reconcile.Restart():
            change = domain.restart(tracked, now=now, timing=timing)
        case reconcile.StopLeftover():
            change = domain.clean_up(tracked, now=now, timing=timing)
        case reconcile.Lost():
            message = "Its cluster no longer has it, and starting it again did not help."
            change = domain.fail(tracked, Reason.LOST, message, now=now, timing=timing)
        case reconcile.Died():
            message = "Its desktop has ended by itself. Create another session."
            change = domain.fail(tracked, Reason.DESKTOP_DIED, message, now=now, timing=timing)
        case reconcile.StopStranger():
            raise TypeError("a stranger is no session of ours")
    return change
