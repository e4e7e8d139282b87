"""How streams end, in codes for programs and words for people.

A browser shows nothing of an HTTP answer to a failed upgrade, so every upgrade of a
viewer is accepted and what is wrong is said by the close frame: a code that the viewer
acts on and a reason that it shows.
"""

from enum import IntEnum

from streamspace_common.contracts.problems import Code, Problem
from streamspace_common.contracts.sessions import Reason, SessionState


class Close(IntEnum):
    """WebSocket close codes; from 4400 on in the likeness of HTTP's."""

    NORMAL = 1000
    POLICY = 1008
    INTERNAL = 1011
    RESTARTING = 1012
    TRY_AGAIN = 1013
    TICKET_REFUSED = 4401
    WRONG_ORIGIN = 4403
    NO_SESSION = 4404
    TOO_SLOW = 4408
    NOT_RUNNING = 4409
    ENDED = 4410
    UNREACHABLE = 4502


class Refusal(Exception):  # noqa: N818 - it refuses a viewer; nothing has gone wrong
    """Ends a viewer's stream; `reason` is shown to the person."""

    def __init__(self, code: Close, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


_CODES = {
    Code.TICKET_REFUSED: Close.TICKET_REFUSED,
    Code.UNAUTHENTICATED: Close.TICKET_REFUSED,
    Code.FORBIDDEN: Close.TICKET_REFUSED,
    Code.INVALID_REQUEST: Close.TICKET_REFUSED,
    Code.NOT_FOUND: Close.NO_SESSION,
    Code.WRONG_STATE: Close.NOT_RUNNING,
    Code.SESSION_UNREACHABLE: Close.UNREACHABLE,
    Code.TOO_MANY_REQUESTS: Close.TRY_AGAIN,
    Code.SERVICE_UNAVAILABLE: Close.TRY_AGAIN,
}


def refusal_of_ticket(problem: Problem) -> Refusal:
    """What the session service's answer to a ticket means for the viewer."""
    return Refusal(_CODES.get(problem.code, Close.INTERNAL), problem.detail)


def refusal_of_tunnel(problem: Problem) -> Refusal:
    """What an agent's answer means; that none answered is not the viewer's to wait for."""
    match problem.code:
        case Code.WRONG_STATE:
            return Refusal(Close.NOT_RUNNING, problem.detail)
        case Code.TOO_MANY_REQUESTS:
            return Refusal(Close.TRY_AGAIN, problem.detail)
        case Code.SERVICE_UNAVAILABLE:
            return Refusal(
                Close.UNREACHABLE, "The cluster of this session does not answer right now."
            )
        case _:
            return Refusal(Close.UNREACHABLE, problem.detail)


_STOPPED: dict[Reason | None, str] = {
    None: "The session was stopped.",
    Reason.IDLE: "The session was stopped because nobody used it.",
    Reason.MAX_DURATION: "The session was stopped at the end of its longest duration.",
}
_HIBERNATED: dict[Reason | None, str] = {
    None: "The session was hibernated. Wake it to go on.",
    Reason.IDLE: "The session was hibernated because nobody used it. Wake it to go on.",
}
_ENDINGS = {
    SessionState.TERMINATING: _STOPPED,
    SessionState.TERMINATED: _STOPPED,
    SessionState.HIBERNATING: _HIBERNATED,
    SessionState.HIBERNATED: _HIBERNATED,
}
"""Words for each state without a stream, by reason; None for any other reason."""


def why_ended(
    state: SessionState, reason: Reason | None = None, message: str | None = None
) -> str | None:
    """Why a session in `state` has no stream any more; None where streams may go on.

    `unknown` is such a state: an agent out of reach for the control plane may still
    serve its viewers well.
    """
    if state is SessionState.FAILED:
        return f"The session failed: {message}" if message else "The session failed."
    by_reason = _ENDINGS.get(state, {})
    return by_reason.get(reason, by_reason.get(None))


def why_tunnel_ended(code: int, reason: str) -> tuple[int, str]:
    """What a viewer is told when its session's side is gone.

    An agent's own words go through; anything else is a connection that broke.
    """
    if reason and (code in {Close.RESTARTING, Close.TRY_AGAIN} or 4400 <= code < 4600):
        return code, reason
    return Close.UNREACHABLE, "The connection to the session was lost."
