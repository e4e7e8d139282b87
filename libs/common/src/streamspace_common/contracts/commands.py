"""Commands: the desired state of one session, sent to its cluster.

Only the newest command of a session counts. `generation` grows by one with each
command of the session; an agent that has acted on a generation ignores every
lower one. A re-issue of the same command carries the same `command_id` and
`generation` and a higher `attempt`.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter

from streamspace_common.contracts.base import Message, Timestamp
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterIdText, CommandIdText, SessionIdText
from streamspace_common.contracts.sessions import DesiredState, SessionSpec


class _Command(Message):
    command_id: CommandIdText
    attempt: int = Field(default=1, ge=1)
    session_id: SessionIdText
    cluster_id: ClusterIdText
    generation: int = Field(ge=1)
    issued_at: Timestamp
    deadline: Timestamp = Field(description="Past this, the command is reported expired.")
    actor: Actor


class StartSession(_Command):
    """Bring the session up from nothing."""

    TYPE: ClassVar[str] = "session.start.v1"
    action: Literal["start_session"] = "start_session"
    spec: SessionSpec


class WakeSession(_Command):
    """Bring a hibernated session back, with the same home.

    It carries the whole spec, so that an agent that kept nothing can wake it too.
    """

    TYPE: ClassVar[str] = "session.wake.v1"
    action: Literal["wake_session"] = "wake_session"
    spec: SessionSpec


class HibernateSession(_Command):
    """Stop what runs and keep the home."""

    TYPE: ClassVar[str] = "session.hibernate.v1"
    action: Literal["hibernate_session"] = "hibernate_session"
    spec: SessionSpec


class StopSession(_Command):
    """Remove everything of the session; the home too when `delete_home` says so."""

    TYPE: ClassVar[str] = "session.stop.v1"
    action: Literal["stop_session"] = "stop_session"
    delete_home: bool = False


Command = Annotated[
    StartSession | StopSession | HibernateSession | WakeSession, Field(discriminator="action")
]

COMMAND: TypeAdapter[StartSession | StopSession | HibernateSession | WakeSession] = TypeAdapter(
    Command
)
"""Reads any command from its JSON."""

COMMAND_TYPES: tuple[type[_Command], ...] = (
    StartSession,
    StopSession,
    HibernateSession,
    WakeSession,
)


def message_id(command: StartSession | StopSession | HibernateSession | WakeSession) -> str:
    """`Nats-Msg-Id` of a command: a re-issue is a new message, a retry is not."""
    return f"{command.command_id}.{command.attempt}"


def desired_by(
    command: StartSession | StopSession | HibernateSession | WakeSession,
) -> DesiredState:
    match command:
        case StartSession() | WakeSession():
            return DesiredState.RUNNING
        case HibernateSession():
            return DesiredState.HIBERNATED
        case StopSession():
            return DesiredState.TERMINATED
