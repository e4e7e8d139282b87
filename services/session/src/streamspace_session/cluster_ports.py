"""What the handlers need to keep clusters and to know who is there; the rest is in `ports`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from streamspace_common.contracts.clusters import Cluster, Heartbeat, Presence
from streamspace_common.contracts.events import ClusterEnrolled, ClusterRevoked
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.requests import ForgetCluster
from streamspace_session.policy.placement import Candidate
from streamspace_session.policy.presence import Heard


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """A cluster's row: who it is and what was last concluded of it."""

    id: ClusterId
    name: str
    presence: Presence
    drained: bool = False
    reserved_sessions: int = 0
    """Its sessions that have not ended."""


class Clusters(Protocol):
    """Clusters, their agents' heartbeats, and the room reserved on them."""

    async def ids(self) -> list[ClusterId]: ...

    async def lock_one(self, cluster: ClusterId) -> ClusterRecord | None: ...

    async def lock_silent(
        self, late_after: timedelta, offline_after: timedelta
    ) -> list[ClusterRecord]:
        """Those of whom nobody has been heard for so long that they are no longer as shown."""
        ...

    async def candidates(self) -> list[Candidate]:
        """All of them, locked, so that placements made side by side see each other."""
        ...

    async def is_live(self, cluster: ClusterId | None) -> bool: ...

    async def heard(self, cluster: ClusterId) -> list[Heard]:
        """The last heartbeat of each of its agents."""
        ...

    async def note(self, heartbeat: Heartbeat) -> None:
        """Keep an agent's heartbeat, with the time we took note of it."""
        ...

    async def conclude(self, cluster: ClusterId, presence: Presence, live: Sequence[Heard]) -> None:
        """Keep what was concluded from the heartbeats of its live agents."""
        ...

    async def drain(self, cluster: ClusterId, by: str) -> None:
        """An operator wants no new sessions there from now on."""
        ...

    async def undrain(self, cluster: ClusterId) -> None: ...

    async def is_drained(self, cluster: ClusterId | None) -> bool: ...

    async def exists(self, cluster: ClusterId | None) -> bool: ...

    async def views(self) -> list[Cluster]: ...

    async def view(self, cluster: ClusterId) -> Cluster | None: ...


class ClusterAccess(Protocol):
    """Who of the clusters is let in, as far as auth has told; it decides."""

    async def enrol(self, event: ClusterEnrolled, sequence: int) -> None:
        """Let it in, unless something newer (by stream sequence) is known of its access."""
        ...

    async def revoke(self, event: ClusterRevoked, sequence: int) -> None:
        """Its agents are not let in, unless something newer is known."""
        ...

    async def revoked(self) -> frozenset[ClusterId]:
        """Those whose agents are not let in."""
        ...

    async def close(self, cluster: ClusterId, sequence: int) -> bool:
        """Have nothing placed on a cluster that is about to be removed.

        Waits for whoever is just placing something there. Returns whether there is such a
        cluster, and nothing newer is known of it.
        """
        ...

    async def remove(self, cluster: ClusterId, sequence: int) -> None:
        """Forget a cluster and what was to be sent to it; older news does not bring it back."""
        ...

    async def is_revoked(self, cluster: ClusterId | None) -> bool: ...


class ClusterAccounts(Protocol):
    """Auth, which lets clusters in."""

    async def forget(self, request: ForgetCluster) -> None:
        """Have a revoked cluster's account taken away, and its removal told.

        Raises:
            ProblemError: auth refuses it, or does not answer.
        """
        ...
