"""What the handlers need to keep clusters and to know who is there; the rest is in `ports`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from streamspace_common.contracts.clusters import Cluster, Heartbeat, Presence
from streamspace_common.contracts.events import ClusterEnrolled
from streamspace_common.contracts.ids import ClusterId
from streamspace_session.policy.placement import Candidate
from streamspace_session.policy.presence import Heard


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """A cluster's row: who it is and what was last concluded of it."""

    id: ClusterId
    name: str
    presence: Presence
    drained: bool = False


class Clusters(Protocol):
    """Clusters, their agents' heartbeats, and the room reserved on them."""

    async def enrol(self, event: ClusterEnrolled) -> None: ...

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

    async def views(self) -> list[Cluster]: ...

    async def view(self, cluster: ClusterId) -> Cluster | None: ...
