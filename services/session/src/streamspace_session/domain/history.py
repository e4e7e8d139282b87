"""What a recorded event tells of a session: an entry of its history, or how it was then."""

from streamspace_common.contracts.events import (
    CommandDied,
    CoreEvent,
    DeadLetterDiscarded,
    DeadLetterRetried,
    SessionCommandChanged,
    SessionCreated,
    SessionStateChanged,
    parse_event,
)
from streamspace_common.contracts.history import HistoryEntry
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Session

WITH_SESSION: tuple[str, ...] = (
    SessionCreated.TYPE,
    SessionStateChanged.TYPE,
    SessionCommandChanged.TYPE,
)
"""Types of the events that carry the whole session."""


def session_in(type_name: str, payload: bytes) -> Session:
    """The session as the event left it.

    Raises:
        ValueError: an event of this type carries none.
    """
    event = parse_event(type_name, payload)
    match event:
        case SessionCreated() | SessionStateChanged() | SessionCommandChanged():
            return event.session
        case _:
            raise ValueError(f"{type_name} carries no session")


def entry(type_name: str, payload: bytes, trace_id: str | None) -> HistoryEntry:
    """The event as a line of the history."""
    event = parse_event(type_name, payload)
    if not isinstance(event, CoreEvent):
        raise TypeError(f"{type_name} is no decision of the control plane")
    return HistoryEntry(
        event_id=event.id,
        type=event.TYPE,
        session_id=SessionId(event.about),
        at=event.at,
        actor=event.actor,
        cause=event.cause,
        trace_id=trace_id,
        **_told(event),
    )


def _told(event: CoreEvent) -> dict[str, object]:
    match event:
        case SessionCreated(session=session):
            return {
                "to_state": session.state,
                "desired": session.desired,
                "generation": session.generation,
                "cluster_id": session.cluster_id,
                "command_id": event.command_id,
                "command": event.command,
            }
        case SessionStateChanged(session=session):
            return {
                "from_state": event.from_state,
                "to_state": event.to_state,
                "desired": event.desired,
                "reason": event.reason,
                "message": event.message,
                "generation": event.generation,
                "cluster_id": session.cluster_id,
                "command_id": event.command_id,
                "command": event.command,
                "replaced": event.replaced,
            }
        case SessionCommandChanged(session=session, command=command):
            return {
                "generation": command.generation,
                "cluster_id": session.cluster_id,
                "command_id": command.id,
                "command": command,
                "replaced": event.replaced,
            }
        case CommandDied() | DeadLetterRetried() | DeadLetterDiscarded():
            letter = event.letter
            return {
                "message": letter.reason,
                "generation": letter.generation,
                "cluster_id": letter.cluster_id,
                "command_id": letter.command_id,
                "dead_letter_id": letter.id,
            }
        case _:
            return {}
