"""Builders for sessions, commands and reports; nothing in this folder opens a socket."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamspace_common.contracts.catalog import (
    Connection,
    Metadata,
    ProcessSpec,
    Protocol,
    ResourceAmounts,
    TemplateManifest,
    TemplateSpec,
)
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterId, TemplateId
from streamspace_common.contracts.sessions import (
    DesiredState,
    Owner,
    SessionCommandState,
    SessionState,
)
from streamspace_session.domain import Action, Asked, Timing, Tracked, create

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
ADA = Owner(user_id="usr-" + "ada0" * 8, username="ada")
ADA_ACTS = Actor(id=ADA.user_id, name="ada", address="192.0.2.7")


@dataclass
class Sessions:
    """Makes tracked sessions in any state, at a fixed time."""

    now: datetime = NOW
    timing: Timing = field(default_factory=Timing)
    actor: Actor = ADA_ACTS
    owner: Owner = ADA

    def later(self, **duration: float) -> datetime:
        return self.now + timedelta(**duration)

    def manifest(self, **spec: Any) -> TemplateManifest:
        given = {
            "display_name": "Desktop",
            "process": ProcessSpec(command=("xterm",)),
            "connection": Connection(protocol=Protocol.VNC, port=5901),
            **spec,
        }
        return TemplateManifest(metadata=Metadata(name="desktop"), spec=TemplateSpec(**given))

    def new(self, *, cluster: str | None = "lab") -> Tracked:
        tracked, _ = create(
            Asked(
                owner=self.owner,
                template_id=TemplateId("starter_desktop"),
                template_name="desktop",
                digest="sha256:1",
                manifest=self.manifest(),
                resources=ResourceAmounts(),
                cpu_milli=1000,
                memory_bytes=2**31,
                persistent_home=True,
                idle_timeout=None,
                max_duration=None,
                cluster=ClusterId(cluster) if cluster else None,
                wanted_cluster=None,
                protocol=Protocol.VNC,
            ),
            actor=self.actor,
            now=self.now,
            timing=self.timing,
        )
        return tracked

    def in_state(
        self,
        state: SessionState,
        *,
        action: Action | None = None,
        order: SessionCommandState | None = None,
        generation: int = 1,
        cluster: str | None = "lab",
        **fields: Any,
    ) -> Tracked:
        """A session in `state` with the command that usually led there."""
        tracked = self.new(cluster=cluster)
        usual, desired, command = _USUAL[state]
        session = tracked.session.model_copy(
            update={"state": state, "desired": desired, "generation": generation, **fields}
        )
        return replace(
            tracked,
            session=session,
            order=replace(
                tracked.order,
                action=action or usual,
                state=order or command,
                generation=generation,
            ),
        )


_DONE, _OPEN = SessionCommandState.COMPLETED, SessionCommandState.ACKNOWLEDGED
_USUAL = {
    SessionState.PENDING: (Action.START, DesiredState.RUNNING, SessionCommandState.PENDING),
    SessionState.STARTING: (Action.START, DesiredState.RUNNING, _OPEN),
    SessionState.RUNNING: (Action.START, DesiredState.RUNNING, _DONE),
    SessionState.HIBERNATING: (Action.HIBERNATE, DesiredState.HIBERNATED, _OPEN),
    SessionState.HIBERNATED: (Action.HIBERNATE, DesiredState.HIBERNATED, _DONE),
    SessionState.WAKING: (Action.WAKE, DesiredState.RUNNING, _OPEN),
    SessionState.TERMINATING: (Action.STOP, DesiredState.TERMINATED, _OPEN),
    SessionState.TERMINATED: (Action.STOP, DesiredState.TERMINATED, _DONE),
    SessionState.FAILED: (Action.STOP, DesiredState.RUNNING, _OPEN),
    SessionState.UNKNOWN: (Action.START, DesiredState.RUNNING, _DONE),
}


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()
