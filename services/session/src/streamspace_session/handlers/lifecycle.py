"""Reading sessions, and what their owners may ask of them after they exist."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

from streamspace_common.contracts.cursors import cursor_of, moment_and_id
from streamspace_common.contracts.identity import user_actor
from streamspace_common.contracts.ids import SessionId, UserId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    DeleteSession,
    KeptAlive,
    ListSessions,
    SessionAccepted,
    SessionCommands,
    SessionRequest,
)
from streamspace_common.contracts.sessions import Session, SessionState
from streamspace_session import domain, metrics
from streamspace_session.domain import Change, IllegalTransitionError, Timing, Tracked, Trigger
from streamspace_session.handlers.access import lock_own, read_own
from streamspace_session.handlers.drain import refuse_where_closed
from streamspace_session.handlers.effects import carry_out, with_fresh_ids
from streamspace_session.ports import Listed, ListQuery, Store, Transaction

_ADVICE = {
    SessionState.PENDING: "wait until it runs",
    SessionState.STARTING: "wait until it runs",
    SessionState.RUNNING: "it runs already",
    SessionState.HIBERNATING: "wait until it is hibernated, then wake it",
    SessionState.HIBERNATED: "wake it first",
    SessionState.WAKING: "wait until it runs",
    SessionState.TERMINATING: "it is being deleted; create another one",
    SessionState.TERMINATED: "create another one",
    SessionState.FAILED: "delete it and create another one",
    SessionState.UNKNOWN: "its cluster is offline; wait until it returns",
}


Decide = Callable[..., Change]
"""What of `domain` answers a request, once that is known to be possible."""


class Lifecycle:
    """Answers everything about existing sessions but streams."""

    def __init__(self, store: Store, timing: Timing) -> None:
        self._store = store
        self._timing = timing

    async def get(self, request: SessionRequest) -> Session:
        async with self._store.transaction() as tx:
            tracked = await read_own(tx, request.session_id, request.principal)
            return tracked.session

    async def list(self, request: ListSessions) -> bytes:
        """The JSON of a `SessionPage`."""
        query = ListQuery(
            owner=_whose(request),
            states=request.states,
            include_final=request.include_final,
            template=request.template_id,
            cluster=request.cluster_id,
            after=_position(request.cursor),
            limit=request.limit,
        )
        return page_json(await self._store.page(query))

    async def delete(self, request: DeleteSession) -> SessionAccepted:
        async def prepare(tx: Transaction, tracked: Tracked) -> Decide:
            if request.delete_home:
                await _check_home(tx, tracked)
            cluster = tracked.session.cluster_id
            # What a removed cluster had has ended with it: only that can be without one.
            may_be_gone = cluster is not None and tracked.state.is_final
            gone = may_be_gone and not await tx.clusters.exists(cluster)
            return partial(domain.delete, delete_home=request.delete_home, cluster_gone=gone)

        return await self._change(request, prepare)

    async def hibernate(self, request: SessionRequest) -> SessionAccepted:
        async def prepare(_: Transaction, tracked: Tracked) -> Decide:
            _refuse_unless(tracked, Trigger.HIBERNATE, "hibernated")
            return domain.hibernate

        return await self._change(request, prepare)

    async def wake(self, request: SessionRequest) -> SessionAccepted:
        async def prepare(tx: Transaction, tracked: Tracked) -> Decide:
            _refuse_unless(tracked, Trigger.WAKE, "woken")
            await refuse_where_closed(tx, tracked)
            return domain.wake

        return await self._change(request, prepare)

    async def _change(
        self,
        request: SessionRequest,
        prepare: Callable[[Transaction, Tracked], Awaitable[Decide]],
    ) -> SessionAccepted:
        """What an owner asks: check it, decide, and carry it out in one transaction."""

        async def work() -> tuple[Change, list[Change]]:
            async with self._store.transaction() as tx:
                tracked = await lock_own(tx, request.session_id, request.principal)
                decide = await prepare(tx, tracked)
                change = decide(
                    tracked,
                    actor=user_actor(request.principal, request.address),
                    cause=request.request_id,
                    now=await tx.now(),
                    timing=self._timing,
                )
                return change, await carry_out(tx, [change])

        change, changed = await with_fresh_ids(work)
        metrics.count(changed)
        return _accepted(change)

    async def keepalive(self, request: SessionRequest) -> KeptAlive:
        async with self._store.transaction() as tx:
            tracked = await lock_own(tx, request.session_id, request.principal)
            if tracked.state is not SessionState.RUNNING:
                raise wrong_state(tracked, "kept alive")
            now = await tx.now()
            await tx.sessions.touch({request.session_id: timedelta()})
        session = tracked.session
        return KeptAlive(
            session_id=session.id,
            last_activity_at=now,
            idle_deadline=_after(now, session.idle_timeout),
            expires_at=_after(session.started_at or session.created_at, session.max_duration),
        )

    async def commands(self, request: SessionRequest) -> SessionCommands:
        async with self._store.transaction() as tx:
            await read_own(tx, request.session_id, request.principal)
            orders = await tx.sessions.orders(request.session_id)
        return SessionCommands(items=tuple(order.view() for order in orders))


def wrong_state(tracked: Tracked, done: str) -> ProblemError:
    """`done` completes "a session cannot be ..."; the advice says what can be done."""
    state = tracked.state
    why = f" ({tracked.session.message})" if tracked.session.message else ""
    return ProblemError.of(
        Code.WRONG_STATE,
        f"Session {tracked.session.id} is {state}{why} and cannot be {done} now: {_ADVICE[state]}.",
    )


def _refuse_unless(tracked: Tracked, trigger: Trigger, done: str) -> None:
    if not domain.allows(tracked.state, trigger):
        raise wrong_state(tracked, done) from IllegalTransitionError(tracked.state, trigger)


async def _check_home(tx: Transaction, tracked: Tracked) -> None:
    """A home belongs to the user; it must not be deleted under another session's feet."""
    session = tracked.session
    if not session.persistent_home:
        return
    if await tx.sessions.home_is_shared(session.owner.user_id, session.id):
        raise ProblemError.of(
            Code.CONFLICT,
            "Other sessions use the same home. Delete them first, or keep the home.",
        )


def _accepted(change: Change) -> SessionAccepted:
    nobody_told = not change.is_empty and not change.sends_command
    return SessionAccepted(
        session=change.after.session,
        command_id=None
        if nobody_told or change.after.session.cluster_id is None
        else change.after.order.id,
    )


def _whose(request: ListSessions) -> UserId | None:
    principal = request.principal
    asks_for_others = request.everyone or request.owner_id not in {None, principal.user_id}
    if asks_for_others and not principal.sees_everything:
        raise ProblemError.of(
            Code.FORBIDDEN, "Only operators and administrators see other users' sessions."
        )
    if request.owner_id is not None:
        return request.owner_id
    return None if request.everyone else principal.user_id


def _after(moment: datetime, seconds: int | None) -> datetime | None:
    return None if seconds is None else moment + timedelta(seconds=seconds)


def page_json(page: Listed) -> bytes:
    """A page as a `SessionPage` would write it; its sessions are written already."""
    cursor = "null"
    if page.end is not None:
        moment, session = page.end
        cursor = f'"{cursor_of(moment.isoformat(), session)}"'
    return b'{"items":[%b],"nextCursor":%b}' % (b",".join(page.items), cursor.encode())


def _position(cursor: str | None) -> tuple[datetime, SessionId] | None:
    found = moment_and_id(cursor)
    return None if found is None else (found[0], SessionId(found[1]))
