"""Tickets: how a viewer gets from an authenticated request to a stream.

A ticket is 128 random bits, good for one use within a minute. Only its SHA-256 is
kept. What it opens is read from the session when it is used, never from the viewer.
"""

import hashlib
import secrets
from datetime import datetime, timedelta

from streamspace_common.contracts.catalog import Protocol, RuntimeKind
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    Admission,
    AdmissionState,
    CheckAdmission,
    ConnectSession,
    RedeemTicket,
    Ticket,
)
from streamspace_common.contracts.sessions import SessionState, ViewerRole
from streamspace_common.runtime.tracing import current_traceparent
from streamspace_session.domain import Tracked, reach
from streamspace_session.handlers.access import no_such_session, read_own
from streamspace_session.handlers.lifecycle import wrong_state
from streamspace_session.ports import Store, TicketRecord, Transaction

LIFE_LIMIT = timedelta(seconds=60)
_RANDOM_BYTES = 16
_DISABLED = "This account was disabled."

_STREAMING = frozenset({SessionState.RUNNING, SessionState.UNKNOWN})
"""A stream lives on while its agent is silent: nobody knows that anything is wrong."""


class Admissions:
    """Answers `connect`, `redeem_ticket` and `check_admission`."""

    def __init__(self, store: Store, life: timedelta) -> None:
        self._store = store
        self._life = min(life, LIFE_LIMIT)

    async def connect(self, request: ConnectSession) -> Ticket:
        ticket = secrets.token_urlsafe(_RANDOM_BYTES)
        async with self._store.transaction() as tx:
            if await tx.accounts.disabled(request.principal.user_id):
                raise ProblemError.of(Code.FORBIDDEN, _DISABLED)
            tracked = await read_own(tx, request.session_id, request.principal)
            if tracked.state is not SessionState.RUNNING:
                raise wrong_state(tracked, "viewed")
            if request.role is ViewerRole.VIEW and tracked.session.protocol is Protocol.HTTP:
                # What a web client sends cannot be told apart into looking and doing.
                raise ProblemError.of(
                    Code.INVALID_REQUEST,
                    "This session serves its own web client, so it cannot be shared for viewing "
                    "only.",
                )
            expires_at = await tx.now() + self._life
            await tx.tickets.issue(
                _digest(ticket),
                TicketRecord(
                    session_id=tracked.session.id,
                    user_id=request.principal.user_id,
                    username=request.principal.username,
                    role=request.role,
                    expires_at=expires_at,
                    traceparent=current_traceparent(),
                ),
            )
        return Ticket(
            ticket=ticket,
            session_id=tracked.session.id,
            role=request.role,
            protocol=tracked.session.protocol,
            expires_at=expires_at,
        )

    async def redeem(self, request: RedeemTicket) -> Admission:
        digest = _digest(request.ticket.get_secret_value())
        async with self._store.transaction() as tx:
            used = await tx.tickets.use(digest, request.session_id)
            if used is None:
                raise await _refusal(tx, digest, request)
            if await tx.accounts.disabled(used.user_id):
                raise ProblemError.of(Code.TICKET_REFUSED, _DISABLED)
            tracked = await tx.sessions.get(used.session_id)
            if tracked is None:
                raise no_such_session(used.session_id)
            # The ticket stays used up even where the session has meanwhile ended.
            admission = await _admission(tx, tracked, used)
        if admission is None:
            raise wrong_state(tracked, "viewed")
        return admission

    async def check(self, request: CheckAdmission) -> AdmissionState:
        async with self._store.transaction() as tx:
            tracked = await tx.sessions.get(request.session_id)
            if tracked is None:
                raise no_such_session(request.session_id)
            entitled = tracked.session.owner.user_id == request.user_id or (
                await tx.tickets.admitted(request.session_id, request.user_id)
            )
            disabled = await tx.accounts.disabled(request.user_id)
        reason = None
        if disabled:
            reason = _DISABLED
        elif not entitled:
            reason = "You may no longer see this session."
        elif tracked.state not in _STREAMING:
            reason = tracked.session.message or f"The session is {tracked.state}."
        return AdmissionState(allowed=reason is None, reason=reason, state=tracked.state)


async def _admission(tx: Transaction, tracked: Tracked, used: TicketRecord) -> Admission | None:
    session = tracked.session
    if session.state is not SessionState.RUNNING or session.cluster_id is None:
        return None
    manifest = await tx.templates.manifest(session.template_id, session.template_digest)
    cluster = await tx.clusters.view(session.cluster_id)
    target = reach(manifest, cluster.runtime if cluster else RuntimeKind.NULL)
    return Admission(
        session_id=session.id,
        user_id=used.user_id,
        username=used.username,
        owner_id=session.owner.user_id,
        role=used.role,
        cluster_id=session.cluster_id,
        protocol=target.protocol,
        port=target.port,
        path=target.path,
        traceparent=used.traceparent,
    )


async def _refusal(tx: Transaction, digest: bytes, request: RedeemTicket) -> ProblemError:
    """Why, as far as the holder of the ticket may know."""
    known = await tx.tickets.look(digest)
    return ProblemError.of(Code.TICKET_REFUSED, _why(known, request, await tx.now()))


def _why(known: TicketRecord | None, request: RedeemTicket, now: datetime) -> str:
    if known is None or known.session_id != request.session_id:
        return "This ticket does not open this session. Connect again."
    if known.used_at is not None:
        return "This ticket was used before. Connect again."
    if known.expires_at <= now:
        return "This ticket has expired. Connect again."
    return "This ticket cannot be used. Connect again."


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
