"""Who may see a session. What one may not see does not exist, as far as one can tell."""

from streamspace_common.contracts.identity import Principal, is_owner
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_session.domain import Tracked
from streamspace_session.ports import Transaction


def no_such_session(session: SessionId) -> ProblemError:
    return ProblemError.of(Code.NOT_FOUND, f"There is no session {session}.")


async def read_own(tx: Transaction, session: SessionId, principal: Principal) -> Tracked:
    """The caller's session.

    Raises:
        ProblemError: `not-found`, also when it is somebody else's.
    """
    return _own(await tx.sessions.get(session), session, principal)


async def lock_own(tx: Transaction, session: SessionId, principal: Principal) -> Tracked:
    """The same, kept from changing until the commit."""
    found = await tx.sessions.lock([session])
    return _own(found.get(session), session, principal)


def _own(tracked: Tracked | None, session: SessionId, principal: Principal) -> Tracked:
    if tracked is None or not is_owner(principal, tracked.session.owner.user_id):
        raise no_such_session(session)
    return tracked
