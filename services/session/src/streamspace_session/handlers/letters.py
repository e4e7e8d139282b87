"""Dead letters: what the server's advisories tell of, and what operators make of them."""

from datetime import datetime, timedelta

from pydantic import ValidationError

from streamspace_common.contracts.commands import COMMAND
from streamspace_common.contracts.cursors import cursor_of, moment_and_id
from streamspace_common.contracts.dead_letters import (
    DeadLetter,
    DeadLetterCause,
    DeadLetterId,
    DeadLetterState,
)
from streamspace_common.contracts.events import DeadLetterDiscarded, DeadLetterRetried
from streamspace_common.contracts.identity import Actor, Principal, user_actor
from streamspace_common.contracts.ids import UserId, new_message_id
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    DeadLetterPage,
    DeadLetterRequest,
    ListDeadLetters,
    RetryAccepted,
)
from streamspace_common.runtime.logging import get_logger
from streamspace_session import domain, metrics
from streamspace_session.domain import SYSTEM, Change, Message, Timing, Tracked
from streamspace_session.handlers import burial
from streamspace_session.handlers.effects import carry_out, with_fresh_ids
from streamspace_session.letter_ports import Buried, DeadCommand, LetterQuery, StoredMessage
from streamspace_session.policy import letters, quotas
from streamspace_session.policy.quotas import Quota, QuotaExceededError, Usage
from streamspace_session.ports import Store, Transaction

log = get_logger(__name__)

_SOON = timedelta(seconds=10)
"""For a report that explains an advisory, before the sweeper looks at the session."""


class Undertaker:
    """Makes dead letters of what the server will not deliver again."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(self, dead: DeadCommand) -> None:
        """Keep the letter of one message, or add to it what the advisory knows.

        Raises:
            ProblemError: `service-unavailable`; nothing has happened.
        """
        async with self._store.transaction() as tx:
            message = dead.message
            if message is None:
                known = await tx.letters.complete(dead.sequence, dead.deliveries, dead.consumer)
                if known is None:
                    # A newer command took its place: nobody misses this one.
                    log.info("advisory.superseded", sequence=dead.sequence)
                else:
                    await burial.move(tx, known)
                return
            await self._bury(tx, dead, message)

    async def _bury(self, tx: Transaction, dead: DeadCommand, message: StoredMessage) -> None:
        found = await tx.sessions.lock([message.session])
        tracked = found.get(message.session)
        letter = _letter(dead, message, await tx.now())
        mine = tracked is not None and tracked.session.cluster_id == message.cluster
        if tracked is None or not mine:
            await burial.keep(tx, letter, message.payload, owner=None, complete=True)
            return
        if letters.is_outdated(letter, tracked) and letter.command_id is not None:
            if await tx.letters.lock(letter.id) is not None:
                await burial.keep(tx, letter, message.payload, owner=None, complete=True)
            return
        owner = tracked.session.owner.user_id
        ours = letter.command_id == tracked.order.id
        # Of a command that still counts as open the reason is on its way, or never comes.
        waits = ours and tracked.order.is_open and not letters.is_answered(letter, tracked)
        terminated = letter.cause is DeadLetterCause.TERMINATED
        await burial.keep(
            tx, letter, message.payload, owner=owner, complete=not (waits and terminated)
        )
        if letters.is_answered(letter, tracked):
            await tx.letters.answer(tracked.order.id, tracked.order.attempt, SYSTEM, await tx.now())
        elif waits:
            await carry_out(tx, [_look_soon(tracked, await tx.now())])


def _look_soon(tracked: Tracked, now: datetime) -> Change:
    """Nobody works on its command any more: have the sweeper judge it soon."""
    deadline = tracked.session.deadline
    if deadline is None or deadline <= now + _SOON:
        return Change(tracked, tracked)
    return domain.extend(tracked, now + _SOON, now=now)


def _letter(dead: DeadCommand, message: StoredMessage, now: datetime) -> DeadLetter:
    command = _read(message)
    cause = DeadLetterCause.TERMINATED if dead.terminated else DeadLetterCause.MAX_DELIVERIES
    reason = dead.reason or (
        "Its agent refused it and did not say why."
        if dead.terminated
        else f"It was delivered {dead.deliveries} times and never acknowledged."
    )
    id_ = f"{dead.stream}-{dead.sequence}"
    if command is not None:
        id_ = f"{command.command_id}.{command.attempt}"
    return DeadLetter(
        id=DeadLetterId(id_),
        cluster_id=message.cluster,
        session_id=message.session,
        command_id=command.command_id if command else None,
        generation=command.generation if command else None,
        attempt=command.attempt if command else None,
        action=command.action if command else None,
        cause=cause,
        reason=reason,
        origin_stream=dead.stream,
        origin_sequence=dead.sequence,
        deliveries=dead.deliveries,
        consumer=dead.consumer,
        headers=dict(message.headers),
        died_at=now,
    )


def _read(message: StoredMessage) -> Message | None:
    """The command in it; None when it is none, or another session's than its subject says."""
    try:
        command = COMMAND.validate_json(message.payload)
    except ValidationError:
        return None
    if (command.cluster_id, command.session_id) != (message.cluster, message.session):
        return None
    return command


class DeadLetters:
    """Answers `list_dead_letters`, `retry_dead_letter` and `discard_dead_letter`."""

    def __init__(self, store: Store, timing: Timing, quota: Quota) -> None:
        self._store = store
        self._timing = timing
        self._quota = quota

    async def list(self, request: ListDeadLetters) -> DeadLetterPage:
        _check(request.principal)
        query = LetterQuery(
            states=request.states or (DeadLetterState.OPEN,),
            cluster=request.cluster_id,
            session=request.session_id,
            after=_position(request.cursor),
            limit=request.limit + 1,
        )
        async with self._store.transaction() as tx:
            found = await tx.letters.page(query)
        page, more = found[: request.limit], len(found) > request.limit
        last = page[-1] if more else None
        return DeadLetterPage(
            items=tuple(page),
            next_cursor=cursor_of(last.died_at.isoformat(), last.id) if last is not None else None,
        )

    async def discard(self, request: DeadLetterRequest) -> DeadLetter:
        """Settle a letter without doing anything for its command."""
        _check(request.principal)
        actor = user_actor(request.principal, request.address)
        async with self._store.transaction() as tx:
            buried, tracked = await self._open(tx, request)
            now = await tx.now()
            letter = await tx.letters.settle(
                buried.letter.id, DeadLetterState.DISCARDED, actor, now
            )
            tx.tell(
                DeadLetterDiscarded(
                    **_about(letter, tracked, actor, request.request_id, now), letter=letter
                )
            )
        return letter

    async def retry(self, request: DeadLetterRequest) -> RetryAccepted:
        """Have the command's effect brought about after all, on the session's usual way."""
        _check(request.principal)
        return await with_fresh_ids(lambda: self._retry(request))

    async def _retry(self, request: DeadLetterRequest) -> RetryAccepted:
        actor = user_actor(request.principal, request.address)
        async with self._store.transaction() as tx:
            buried, tracked = await self._open(tx, request)
            if tracked is None:
                raise ProblemError.of(
                    Code.CONFLICT,
                    f"There is no session {buried.letter.session_id} whose command this could "
                    "be. Discard it.",
                )
            change = await self._decide(tx, buried.letter, tracked, actor, request.request_id)
            changed = await carry_out(tx, [change])
            now, command = await tx.now(), change.after.order.id
            letter = await tx.letters.settle(
                buried.letter.id, DeadLetterState.RETRIED, actor, now, command
            )
            tx.tell(
                DeadLetterRetried(
                    **_about(letter, tracked, actor, request.request_id, now), letter=letter
                )
            )
        metrics.count(changed)
        return RetryAccepted(letter=letter, session=change.after.session, command_id=command)

    async def _open(
        self, tx: Transaction, request: DeadLetterRequest
    ) -> tuple[Buried, Tracked | None]:
        """The letter and its session, both locked: the session first, as everybody does."""
        session = await tx.letters.session_of(request.letter_id)
        if session is None:
            raise _no_such(request.letter_id)
        tracked = (await tx.sessions.lock([session])).get(session)
        buried = await tx.letters.lock(request.letter_id)
        if buried is None:
            raise _no_such(request.letter_id)
        if buried.letter.state is not DeadLetterState.OPEN:
            raise ProblemError.of(
                Code.CONFLICT, f"Dead letter {buried.letter.id} is {buried.letter.state} already."
            )
        return buried, tracked

    async def _decide(
        self,
        tx: Transaction,
        letter: DeadLetter,
        tracked: Tracked,
        actor: Actor,
        cause: str | None,
    ) -> Change:
        now, timing = await tx.now(), self._timing
        if not await tx.clusters.exists(letter.cluster_id):
            raise ProblemError.of(
                Code.CONFLICT, f"Cluster {letter.cluster_id} was removed. Discard this."
            )
        match letters.retry(letter, tracked):
            case letters.SendAgain():
                return domain.reissue(tracked, actor=actor, cause=cause, now=now, timing=timing)
            case letters.DeleteAgain():
                return domain.delete(
                    tracked,
                    actor=actor,
                    cause=cause,
                    now=now,
                    timing=timing,
                    delete_home=tracked.order.delete_home,
                )
            case letters.CleanUpAgain():
                return domain.clean_up(tracked, actor=actor, cause=cause, now=now, timing=timing)
            case letters.StartAgain():
                await self._check_start(tx, tracked)
                return domain.retry(tracked, actor=actor, cause=cause, now=now, timing=timing)
            case letters.Refuse(why=why):
                raise ProblemError.of(Code.CONFLICT, why)

    async def _check_start(self, tx: Transaction, tracked: Tracked) -> None:
        session = tracked.session
        if await tx.access.is_revoked(session.cluster_id):
            raise ProblemError.of(
                Code.CONFLICT,
                f"The access of cluster {session.cluster_id} has been revoked: nothing is started "
                "there. Retry it when the cluster has been enrolled again, or discard it.",
            )
        owner = session.owner.user_id
        if session.cluster_id is None or not await tx.templates.kept(
            session.template_id, session.template_digest
        ):
            raise ProblemError.of(
                Code.CONFLICT,
                "Its template has changed since, and what the session was started from is no "
                "longer kept. Create another session, and discard this.",
            )
        if await tx.accounts.disabled(owner):
            raise ProblemError.of(Code.CONFLICT, "The session's owner is disabled.")
        usage = (await tx.sessions.lock_usage([owner]))[owner]
        try:
            quotas.check(usage.plus(Usage(1, tracked.cpu_milli, tracked.memory_bytes)), self._quota)
        except QuotaExceededError as error:
            raise ProblemError.of(Code.QUOTA_EXCEEDED, str(error)) from None


def _about(
    letter: DeadLetter,
    tracked: Tracked | None,
    actor: Actor,
    cause: str | None,
    now: datetime,
) -> dict[str, object]:
    owner: UserId | None = tracked.session.owner.user_id if tracked is not None else None
    return {
        "id": str(new_message_id()),
        "at": now,
        "actor": actor,
        "cause": cause,
        "session_id": letter.session_id,
        "owner_id": owner,
    }


def _position(cursor: str | None) -> tuple[datetime, DeadLetterId] | None:
    found = moment_and_id(cursor)
    return None if found is None else (found[0], DeadLetterId(found[1]))


def _no_such(letter: DeadLetterId) -> ProblemError:
    return ProblemError.of(Code.NOT_FOUND, f"There is no dead letter {letter}.")


def _check(principal: Principal) -> None:
    if not principal.sees_everything:
        raise ProblemError.of(Code.FORBIDDEN, "Only operators and administrators see dead letters.")
