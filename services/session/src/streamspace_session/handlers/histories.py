"""What happened to a session, and how it was at any moment."""

from streamspace_common.contracts.cursors import cursor_of, not_a_cursor, words_of
from streamspace_common.contracts.history import HistoryEntry
from streamspace_common.contracts.identity import Actor, Principal
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    SessionAt,
    SessionHistory,
    SessionHistoryRequest,
)
from streamspace_common.contracts.sessions import Session, SessionCommand
from streamspace_session.domain.history import WITH_SESSION, entry, session_in
from streamspace_session.handlers.access import read_own
from streamspace_session.ports import Store

_LARGEST = 2**63 - 1


class Histories:
    """Answers `history` and `at`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(self, request: SessionHistoryRequest) -> SessionHistory:
        after = _after(request.cursor)
        async with self._store.transaction() as tx:
            await read_own(tx, request.session_id, request.principal)
            found = await tx.history.page(request.session_id, after, request.limit + 1)
        page, more = found[: request.limit], len(found) > request.limit
        entries = (entry(one.type, one.payload.encode(), one.trace_id) for one in page)
        return SessionHistory(
            items=tuple(_shown_to(request.principal, one) for one in entries),
            next_cursor=cursor_of(str(page[-1].position)) if more else None,
        )

    async def at(self, request: SessionAt) -> Session:
        """The session as the last event before the moment left it."""
        async with self._store.transaction() as tx:
            await read_own(tx, request.session_id, request.principal)
            found = await tx.history.last_before(request.session_id, request.at, WITH_SESSION)
        if found is None:
            raise ProblemError.of(
                Code.NOT_FOUND,
                f"Nothing is known of session {request.session_id} at {request.at.isoformat()}: "
                "it did not exist yet, or its history is no longer kept.",
            )
        return session_in(found.type, found.payload.encode())


def _after(cursor: str | None) -> int:
    if cursor is None:
        return 0
    [position] = words_of(cursor, 1)
    if not (position.isascii() and position.isdigit() and int(position) <= _LARGEST):
        raise not_a_cursor()
    return int(position)


def _shown_to(principal: Principal, one: HistoryEntry) -> HistoryEntry:
    """Where somebody sat who acted is for operators to know."""
    if principal.sees_everything:
        return one
    return one.model_copy(
        update={
            "actor": _without_address(one.actor),
            "command": _command_without_address(one.command),
            "replaced": _command_without_address(one.replaced),
        }
    )


def _without_address(actor: Actor) -> Actor:
    return actor.model_copy(update={"address": None})


def _command_without_address(command: SessionCommand | None) -> SessionCommand | None:
    if command is None:
        return None
    return command.model_copy(update={"actor": _without_address(command.actor)})
