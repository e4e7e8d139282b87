"""The one way a change takes effect: row, events and command in one transaction."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.tracing import current_traceparent, span, tracing
from streamspace_session.domain import Action, Change, Tracked, command_message
from streamspace_session.handlers.burial import bury_dead
from streamspace_session.ports import IdTakenError, Transaction

T = TypeVar("T")
log = get_logger(__name__)

_TRIES = 3


async def with_fresh_ids(work: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction that makes new ids; once more should one have been given before."""
    for _ in range(_TRIES - 1):
        try:
            return await work()
        except IdTakenError:
            log.info("id.taken")
    return await work()


async def carry_out(tx: Transaction, changes: Iterable[Change]) -> list[Change]:
    """Keep changes of locked sessions, tell of them and send their commands.

    Returns those that changed anything.
    """
    real = [change for change in changes if not change.is_empty]
    await tx.sessions.save(real)
    for change in real:
        with _trace_of(change):
            await bury_dead(tx, change)
            if change.sends_command:
                await send_newest(tx, change.after)
            for event in change.events:
                tx.tell(event)
            _log(change)
    return real


@contextmanager
def _trace_of(change: Change) -> Iterator[None]:
    """The trace of whatever caused the change.

    Behind a deadline that passed or a cluster that fell silent stands no request: what
    follows of it is a trace of its own, one for each session.
    """
    if change.trace is not None:
        with tracing(change.trace):
            yield
    elif current_traceparent() is None:
        with tracing(None), span("sweep session", session_id=change.after.session.id):
            yield
    else:
        yield


def _log(change: Change) -> None:
    if change.before.state is not change.after.state:
        session = change.after.session
        log.info(
            "session.state",
            session_id=session.id,
            cluster_id=session.cluster_id,
            before=change.before.state,
            state=change.after.state,
            reason=session.reason,
        )


async def send_newest(tx: Transaction, tracked: Tracked) -> None:
    """Send the session's newest command to its cluster."""
    manifest = None
    if tracked.order.action is not Action.STOP:
        session = tracked.session
        manifest = await tx.templates.manifest(session.template_id, session.template_digest)
    tx.send(command_message(tracked, manifest))
