"""Whether a pass still holds: asked of the session service at most once a minute.

A signed cookie says who was admitted, not whether they still are. So the first request in
this process, and then the first after each minute, waits for an answer; the others rely on
it. Where the control plane does not answer, what was true a moment ago is believed on.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from streamspace_common.contracts.ids import SessionId, UserId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import Admission
from streamspace_vnc_proxy.domain import Close, Refusal, refusal_of_ticket, why_ended
from streamspace_vnc_proxy.ports import ControlPlane

_TIMEOUT = 5.0
_MOST = 10_000
"""Rights remembered before the old ones are dropped."""


@dataclass
class _Right:
    confirmed_at: float | None = None
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Rights:
    """What is known of users' rights; `interval` in seconds."""

    def __init__(
        self, control: ControlPlane, monotonic: Callable[[], float], *, interval: float
    ) -> None:
        self._control = control
        self._monotonic = monotonic
        self._interval = interval
        self._known: dict[tuple[SessionId, UserId], _Right] = {}

    def confirmed(self, admission: Admission) -> None:
        """A ticket was redeemed: no need to ask at once."""
        self._right(admission).confirmed_at = self._monotonic()

    def forget(self, admission: Admission) -> None:
        """Ask before the next request."""
        self._known.pop((admission.session_id, admission.user_id), None)

    async def confirm(self, admission: Admission) -> None:
        """Return if the user may still see the session.

        Raises:
            Refusal: not any more, or nobody could be asked.
        """
        right = self._right(admission)
        if self._is_fresh(right):
            return
        async with right.asking:
            if not self._is_fresh(right):
                await self._ask(admission, right)

    async def _ask(self, admission: Admission, right: _Right) -> None:
        try:
            now = await self._control.check(
                admission.session_id, admission.user_id, timeout=_TIMEOUT
            )
        except ProblemError as error:
            passing = error.problem.code in {Code.SERVICE_UNAVAILABLE, Code.INTERNAL}
            if passing and right.confirmed_at is not None:
                right.confirmed_at = self._monotonic()
                return
            self.forget(admission)
            raise refusal_of_ticket(error.problem) from error
        if now.allowed:
            right.confirmed_at = self._monotonic()
            return
        self.forget(admission)
        why = why_ended(now.state)
        if why is not None:
            raise Refusal(Close.ENDED, why)
        raise Refusal(Close.TICKET_REFUSED, now.reason or "You may not see this session any more.")

    def _is_fresh(self, right: _Right) -> bool:
        at = right.confirmed_at
        return at is not None and self._monotonic() - at < self._interval

    def _right(self, admission: Admission) -> _Right:
        key = admission.session_id, admission.user_id
        right = self._known.get(key)
        if right is None:
            if len(self._known) >= _MOST:
                self._known = {k: r for k, r in self._known.items() if self._is_fresh(r)}
            right = self._known[key] = _Right()
        return right
