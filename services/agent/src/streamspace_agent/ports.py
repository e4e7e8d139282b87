"""What the agent needs from outside: a runtime to act with, somewhere to tell events.

A runtime carries sessions out on one kind of platform. The rules every runtime keeps,
proven by one behaviour suite that all of them pass:

* Each operation is idempotent: asked for what is so already, it changes nothing.
* Each is fenced by `generation`: the generation is written on the resource first, then
  the work is done, then the generation is read again; if a newer one is found there,
  what was done is undone and `Superseded` is raised. A lower generation than the one
  written never has an effect, whichever replica it reaches and however late.
* Each cleans up behind itself when it fails or is cancelled.
* Sessions outlive the agent: `open` finds again what an earlier agent left running.

Errors of a runtime:

    RuntimeFailure
    ├── Superseded           a newer command is known; nothing was done
    ├── PassingFailure       a retry may succeed
    ├── PermanentFailure     no retry will: the reason is for the user
    └── SessionUnreachable   `dial`: there is no such stream here
"""

from collections.abc import AsyncIterator
from typing import Protocol

from streamspace_agent.domain import Observed
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity
from streamspace_common.contracts.events import AgentEvent
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, Reason, SessionSpec
from streamspace_common.relay.pump import Leg


class RuntimeFailure(Exception):  # noqa: N818 - the family name; members say what happened
    """Base of what a runtime raises on purpose."""


class Superseded(RuntimeFailure):
    """A newer generation is written on the resource; the work was not done, or undone."""

    def __init__(self, newer_generation: int) -> None:
        super().__init__(f"generation {newer_generation} is known already")
        self.newer_generation = newer_generation


class PassingFailure(RuntimeFailure):
    """It did not work now; trying again later may."""


class PermanentFailure(RuntimeFailure):
    """It will not work however often it is tried; the message tells a person what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SessionUnreachable(RuntimeFailure):
    """There is no stream to connect to: no such session here, or it is not running."""


class ReportPhase(Protocol):
    """Hears from a runtime how far a start is; must not block.

    Called the moment a phase is reached, with what there is to say of it. Called with
    `ongoing`, as often as the words change, while a phase takes its time: how much of an
    image is here, or what a start waits for.
    """

    def __call__(
        self, phase: Phase, message: str | None = None, /, *, ongoing: bool = False
    ) -> None: ...


class Runtime(Protocol):
    """Carries sessions out; see the module's story for the rules."""

    @property
    def kind(self) -> RuntimeKind: ...

    async def open(self) -> None:
        """Take over what an earlier agent left; call once, before anything else."""

    async def close(self, *, stop_sessions: bool) -> None:
        """Let go of everything.

        With `stop_sessions` nothing is left running, and the next `open` brings the
        same sessions back; without, they run on.
        """

    async def observe(self, session: SessionId) -> Observed | None:
        """The session's resource; None when it was never heard of."""

    async def ensure_running(
        self, spec: SessionSpec, generation: int, report_phase: ReportPhase
    ) -> None:
        """Bring the session up, from nothing or from hibernation; return when it answers.

        Raises:
            Superseded: a newer generation was there before, or came meanwhile.
            PassingFailure: not now.
            PermanentFailure: never.
        """

    async def ensure_hibernated(self, spec: SessionSpec, generation: int) -> None:
        """Stop what runs, keep the home.

        Raises: as `ensure_running`.
        """

    async def ensure_absent(
        self, session: SessionId, generation: int, *, delete_home: bool
    ) -> None:
        """Remove everything of the session, the home only when told so.

        Raises: as `ensure_running`.
        """

    def watch(self) -> AsyncIterator[Observed]:
        """Resources that changed by themselves, within seconds, for ever.

        It begins with the dead ones found at `open`, so none is missed by a restart.
        """

    async def inventory(self) -> tuple[Observed, ...]:
        """Every session held, those with `state` None left out."""

    async def dial(self, session: SessionId, port: int) -> Leg:
        """Connect to a port of the session.

        Raises:
            SessionUnreachable: nothing answers there, or the port is not the session's.
        """

    async def capacity(self) -> Capacity:
        """What this cluster can hold in all."""

    async def trouble(self) -> str | None:
        """Why new sessions will fail here, in words; None when they will not."""


class Events(Protocol):
    """Where events go. Returning means stored."""

    async def publish(self, event: AgentEvent) -> None:
        """Store one event; while the bus is away it keeps trying, with the same id."""
