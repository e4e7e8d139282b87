"""An event on its way to browsers: what is read from it, and what a user may see of it."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from pydantic import ValidationError

from streamspace_common.contracts import events
from streamspace_common.contracts.sessions import SessionCommand
from streamspace_common.contracts.subjects import EventSubject, SubjectError
from streamspace_common.contracts.subjects import parse_event as parse_subject


@dataclass(frozen=True)
class FeedEvent:
    """One stored event; `sequence` is its place in the EVENTS stream.

    What is read from it is kept with it: all followers of the feed get the same object.
    """

    sequence: int
    subject: str
    type: str
    payload: bytes
    traceparent: str | None = None

    @cached_property
    def about(self) -> EventSubject | None:
        """Its subject taken apart; None when it is none of ours."""
        try:
            return parse_subject(self.subject)
        except SubjectError:
            return None

    @cached_property
    def owner(self) -> str | None:
        """Whose session it is about; an agent's report names nobody."""
        try:
            content = json.loads(self.payload)
        except ValueError:
            return None
        owner = content.get("ownerId") if isinstance(content, dict) else None
        return owner if isinstance(owner, str) else None

    @cached_property
    def public_json(self) -> str:
        """The event as a user sees it: without the address its actor came from."""
        try:
            parsed = events.parse_event(self.type, self.payload)
        except (events.UnknownEventError, ValidationError):
            return "{}"
        if isinstance(parsed, events.CoreEvent):
            commands = {
                name: _without_address(command)
                for name in ("command", "replaced")
                if (command := getattr(parsed, name, None)) is not None
            }
            parsed = _without_address(parsed).model_copy(update=commands)
        return parsed.model_dump_json()


_Acted = TypeVar("_Acted", events.CoreEvent, SessionCommand)


def _without_address(acted: _Acted) -> _Acted:
    actor = acted.actor.model_copy(update={"address": None})
    return acted.model_copy(update={"actor": actor})
