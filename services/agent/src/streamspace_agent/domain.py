"""What the agent knows of a session: the resource that stands for it, and its death."""

from dataclasses import dataclass

from streamspace_common.contracts.clusters import ResourceReport, ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Reason


@dataclass(frozen=True)
class Death:
    """A desktop that ended by itself.

    `incarnation` names one run of one desktop, so that a death told twice (by two
    replicas, or again after a restart) has the same event id and is stored once.
    """

    incarnation: str
    message: str
    reason: Reason = Reason.DESKTOP_DIED


@dataclass(frozen=True)
class Observed:
    """A session's resource as its runtime sees it right now.

    `generation` is the highest one written on the resource, also by a command that
    has not finished. `state` is None when nothing of the session is left and only the
    generation is remembered, so that a late older command finds out that it is late.
    """

    session_id: SessionId
    generation: int
    state: ResourceState | None
    death: Death | None = None

    def report(self) -> ResourceReport | None:
        """The line of the inventory, or None where there is nothing to hold."""
        if self.state is None:
            return None
        return ResourceReport(
            session_id=self.session_id, generation=self.generation, state=self.state
        )
