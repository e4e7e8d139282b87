"""A session projection out of its events alone: a fold without effects.

What the tables `sessions`, `commands` and `session_history` say can be had again from
the stream: the events carry the session and its command as each change left them, so
the newest of each is how they are now. The fold looks at each payload once and copies
nothing it does not keep; a million events take seconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from pydantic_core import from_json

from streamspace_common.contracts.events import SESSION_HISTORY

_HISTORY = frozenset(event.TYPE for event in SESSION_HISTORY)
_REMEMBERED = 100_000
"""Ids kept to know a repetition by: a stream holds one shortly after the first, if at all."""


class StoredEvent(NamedTuple):
    """An event as the stream holds it: its headers, and the payload unread."""

    id: str
    type: str
    session_id: str
    at: datetime
    trace_id: str | None
    payload: bytes


class HistoryLine(NamedTuple):
    """A row of `session_history`."""

    session_id: str
    event_id: str
    type: str
    at: datetime
    trace_id: str | None
    payload: bytes


@dataclass
class Projection:
    """What the events so far amount to: the newest session and commands they told of.

    The values are the JSON objects of the contracts, unread.
    """

    sessions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    commands: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    newest_command: dict[str, str] = field(default_factory=dict)
    """Session -> its newest command."""
    clusters: dict[str, str | None] = field(default_factory=dict)
    """Command -> the cluster it was for."""
    events: int = 0
    repeated: int = 0
    _seen: set[str] = field(default_factory=set)
    _seen_before: set[str] = field(default_factory=set)

    def fold(self, events: Iterable[StoredEvent]) -> list[HistoryLine]:
        """Take the next events into account; their lines of the history."""
        lines: list[HistoryLine] = []
        for event in events:
            if event.type not in _HISTORY:
                continue
            if self._is_repeated(event.id):
                self.repeated += 1
                continue
            self.events += 1
            # Most of a payload is the same few words again: kept once, all takes a third less.
            self._apply(from_json(event.payload, cache_strings="all"))
            lines.append(
                HistoryLine(
                    event.session_id,
                    event.id,
                    event.type,
                    event.at,
                    event.trace_id,
                    event.payload,
                )
            )
        return lines

    def _apply(self, content: Mapping[str, Any]) -> None:
        session = content.get("session")
        if session is None:
            return
        session_id, cluster = session["id"], session["clusterId"]
        self.sessions[session_id] = session
        if (replaced := content.get("replaced")) is not None:
            self.commands[replaced["id"]] = replaced
            # Known already, unless the stream has forgotten the command's own events.
            self.clusters.setdefault(replaced["id"], cluster)
        if (command := content.get("command")) is not None:
            command_id = command["id"]
            self.commands[command_id] = command
            self.clusters[command_id] = cluster
            self.newest_command[session_id] = command_id

    def _is_repeated(self, event_id: str) -> bool:
        if event_id in self._seen or event_id in self._seen_before:
            return True
        if len(self._seen) >= _REMEMBERED:
            self._seen_before, self._seen = self._seen, set()
        self._seen.add(event_id)
        return False
