"""What becomes of a home when a session that used it goes."""

import asyncio
import contextlib
import secrets

from streamspace_agent.runtimes.process.paths import Layout, remove_tree
from streamspace_agent.runtimes.process.records import Records, SessionRecord
from streamspace_common.contracts.ids import SessionId
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)


class Homes:
    """The homes of one installation. A user's sessions share theirs."""

    def __init__(self, layout: Layout, records: Records) -> None:
        self._layout = layout
        self._records = records

    async def leave(
        self, session: SessionId, record: SessionRecord | None, *, delete: bool
    ) -> None:
        """A session goes for good: its temporary home with it, the user's if told so.

        A home that another session of the user still has is kept all the same.
        """
        await asyncio.to_thread(remove_tree, self._layout.temporary_home(session))
        if not delete or record is None or not record.spec.persistent_home:
            return
        others = [
            other.session_id
            for other in self._records.all()
            if other.session_id != session and other.spec.home == record.spec.home
        ]
        if others:
            log.warning("home kept, other sessions use it", home=record.spec.home, by=others)
            return
        home = self._layout.home(record.spec)
        # Moved away first: a removal cut short leaves no half of a home behind.
        doomed = home.with_name(f".removed-{secrets.token_hex(8)}")
        with contextlib.suppress(FileNotFoundError):
            home.rename(doomed)
            await asyncio.to_thread(remove_tree, doomed)

    def finish_removals(self) -> None:
        """Remove what an agent that was killed had begun to remove."""
        for doomed in (self._layout.state / "homes").glob(".removed-*"):
            remove_tree(doomed)
