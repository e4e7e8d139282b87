"""Ends streams whose session has ended, or whose viewer may not see it any more.

State changes arrive as events within milliseconds. As events could only be late, never
wrong, each viewer's right is also asked for anew every minute. When the control plane
does not answer, streams go on: they do not need it.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable

from pydantic import ValidationError

from streamspace_common.bus import StreamMessage
from streamspace_common.contracts.events import SessionStateChanged, UserChanged
from streamspace_common.contracts.ids import CORE, SessionId, UserId
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.subjects import Subject
from streamspace_common.runtime.logging import get_logger
from streamspace_vnc_proxy.domain import Close, why_ended
from streamspace_vnc_proxy.ports import ControlPlane
from streamspace_vnc_proxy.streams import Streams

log = get_logger(__name__)

WATCHED = (
    Subject(f"evt.{CORE}.session.*.{SessionStateChanged.KIND}"),
    Subject(f"evt.{CORE}.user.*.{UserChanged.KIND}"),
)
_CHECK_TIMEOUT = 5.0


class Endings:
    """Follows what ends streams: sessions that end, and users who are disabled.

    Args:
        streams: whom to cut.
        changes: opens the stream of what is `WATCHED`, from now on.
    """

    def __init__(
        self, streams: Streams, changes: Callable[[], AsyncGenerator[StreamMessage]]
    ) -> None:
        self._streams = streams
        self._changes = changes

    async def run(self) -> None:
        async with contextlib.aclosing(self._changes()) as changes:
            async for message in changes:
                self.on_change(message)

    def on_change(self, message: StreamMessage) -> None:
        """Cut the streams that may not go on after this change."""
        try:
            if message.type == SessionStateChanged.TYPE:
                self._on_session(SessionStateChanged.from_json(message.payload))
            elif message.type == UserChanged.TYPE:
                self._on_user(UserChanged.from_json(message.payload))
        except ValidationError:
            log.warning("change unreadable", subject=message.subject)

    def _on_session(self, event: SessionStateChanged) -> None:
        why = why_ended(event.to_state, event.reason, event.message)
        if why is not None and (count := self._streams.cut(event.session_id, Close.ENDED, why)):
            log.info("streams cut", session_id=event.session_id, streams=count, why=why)

    def _on_user(self, event: UserChanged) -> None:
        if not event.user.disabled:
            return
        for stream in self._streams:
            if stream.admission.user_id == event.user_id:
                stream.end(Close.TICKET_REFUSED, "This account was disabled.")


class Rechecks:
    """Asks again, every `interval` seconds, whether each viewer may be there."""

    def __init__(self, streams: Streams, control: ControlPlane, *, interval: float) -> None:
        self._streams = streams
        self._control = control
        self._interval = interval

    async def run(self) -> None:
        while True:
            # Spread, so that replicas do not ask in step.
            await asyncio.sleep(self._interval * random.uniform(0.8, 1.2))
            await self.check_all()

    async def check_all(self) -> None:
        """One round; ends early when the control plane does not answer."""
        pairs = {(s.admission.session_id, s.admission.user_id) for s in self._streams}
        for session_id, user_id in pairs:
            try:
                await self._check(session_id, user_id)
            except ProblemError as error:
                log.warning("recheck not possible", reason=error.problem.detail)
                return

    async def _check(self, session_id: SessionId, user_id: UserId) -> None:
        now = await self._control.check(session_id, user_id, timeout=_CHECK_TIMEOUT)
        if now.allowed:
            return
        why = why_ended(now.state)
        code = Close.ENDED if why is not None else Close.TICKET_REFUSED
        reason = why or now.reason or "You may not see this session any more."
        for stream in self._streams:
            admission = stream.admission
            if (admission.session_id, admission.user_id) == (session_id, user_id):
                stream.end(code, reason)
