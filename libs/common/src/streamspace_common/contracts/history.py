"""A session's history: what happened to it, in order, with who and what caused it."""

from pydantic import Field

from streamspace_common.contracts.base import Contract, Timestamp
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterIdText, CommandIdText, SessionIdText
from streamspace_common.contracts.sessions import (
    DesiredState,
    Reason,
    SessionCommand,
    SessionState,
)


class HistoryEntry(Contract):
    """One thing that happened; its event's type says which.

    `command` is the newest command as this left it, `replaced` the one it took the
    place of.
    """

    event_id: str
    type: str = Field(description="The event's type, for instance `session.state-changed.v1`.")
    session_id: SessionIdText
    at: Timestamp
    actor: Actor
    cause: str | None = Field(default=None, description="Id of the event or request behind it.")
    trace_id: str | None = None
    from_state: SessionState | None = None
    to_state: SessionState | None = None
    desired: DesiredState | None = None
    reason: Reason | None = None
    message: str | None = None
    generation: int | None = None
    cluster_id: ClusterIdText | None = None
    command_id: CommandIdText | None = None
    command: SessionCommand | None = None
    replaced: SessionCommand | None = None
    dead_letter_id: str | None = None
