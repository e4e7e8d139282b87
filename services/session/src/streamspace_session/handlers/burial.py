"""How a command that gave up becomes a dead letter, exactly once.

Two tell of it: the change that gave it up, which knows why in words, and the server's
advisory, which knows how often it was delivered. Either may come first, and some letters
only ever hear of one of them. The copy in the dead letter stream is sent when both have
spoken, or when the other one has had its time.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from streamspace_common.contracts import dead_letters, subjects
from streamspace_common.contracts.dead_letters import (
    DeadLetter,
    DeadLetterCause,
    DeadLetterId,
)
from streamspace_common.contracts.events import CommandDied
from streamspace_common.contracts.headers import MESSAGE_ID, command_headers
from streamspace_common.contracts.ids import UserId, new_message_id
from streamspace_common.contracts.streams import COMMANDS
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.tracing import current_traceparent
from streamspace_session.domain import SYSTEM, Action, Change, Order, command_message
from streamspace_session.letter_ports import Buried
from streamspace_session.policy.letters import given_up
from streamspace_session.ports import Transaction

log = get_logger(__name__)

PATIENCE = timedelta(seconds=5)
"""For the advisory of a command that its agent refused: it follows the report at once."""
SOURCE = "session"


async def bury_dead(tx: Transaction, change: Change) -> None:
    """Keep the command that the change has given up, if it has."""
    dead = given_up(change)
    if dead is not None:
        order, cause = dead
        await _bury(tx, change, order, cause)
    was, now = change.before.order, change.after.order
    if was.id == now.id and was.attempt < now.attempt:
        await tx.letters.answer(now.id, now.attempt, SYSTEM, await tx.now())


async def _bury(tx: Transaction, change: Change, order: Order, cause: DeadLetterCause) -> None:
    session = change.before.session
    cluster = session.cluster_id
    if cluster is None:
        return
    manifest = None
    if order.action is not Action.STOP:
        manifest = await tx.templates.manifest(session.template_id, session.template_digest)
    message = command_message(replace(change.before, order=order), manifest)
    headers = command_headers(message, SOURCE, current_traceparent())
    letter = DeadLetter(
        id=DeadLetterId(f"{order.id}.{order.attempt}"),
        cluster_id=cluster,
        session_id=session.id,
        command_id=order.id,
        generation=order.generation,
        attempt=order.attempt,
        action=order.action,
        cause=cause,
        reason=_words(change, order),
        origin_stream=COMMANDS.name,
        origin_sequence=await tx.letters.origin(
            cluster, session.id, order.generation, order.attempt
        ),
        headers=headers,
        died_at=await tx.now(),
    )
    # The advisory of a command whose end is our own decision may never come.
    await keep(
        tx,
        letter,
        message.to_json(),
        owner=session.owner.user_id,
        complete=cause is DeadLetterCause.GAVE_UP,
    )
    await tx.letters.answer(order.id, order.attempt, SYSTEM, await tx.now())


def _words(change: Change, order: Order) -> str:
    return order.error or change.after.session.message or "It did not work."


async def keep(
    tx: Transaction,
    letter: DeadLetter,
    payload: bytes,
    *,
    owner: UserId | None,
    complete: bool,
) -> Buried:
    """Keep a letter; tell of it when it is new; send its copy when it is complete."""
    buried = await tx.letters.bury(letter, payload)
    if buried.is_new:
        log.info("letter.buried", letter=letter.id, session_id=letter.session_id)
        tx.tell(
            CommandDied(
                id=str(new_message_id()),
                at=await tx.now(),
                actor=SYSTEM,
                session_id=letter.session_id,
                owner_id=owner,
                letter=buried.letter,
            )
        )
    if complete or (buried.letter.deliveries is not None and not buried.is_new):
        await move(tx, buried)
    return buried


async def move(tx: Transaction, buried: Buried) -> None:
    """Send the copy of a letter to the dead letter stream, unless it was sent before."""
    if buried.is_moved:
        return
    letter = buried.letter
    await tx.post(
        subjects.dead_letter(letter.cluster_id, letter.session_id),
        buried.payload,
        {**_harmless(letter.headers), **origin_headers(letter)},
    )
    await tx.letters.moved(letter.id)


def _harmless(headers: Mapping[str, str]) -> dict[str, str]:
    """Without what would tell the server how to store the copy: that was for the original."""
    return {name: value for name, value in headers.items() if not name.lower().startswith("nats-")}


def origin_headers(letter: DeadLetter) -> dict[str, str]:
    """What the copy says of where it came from; it has an id of its own."""
    told: dict[str, object] = {
        dead_letters.CAUSE: letter.cause,
        # A header is one line.
        dead_letters.REASON: " ".join(letter.reason.split())[:500],
        dead_letters.ORIGIN_STREAM: letter.origin_stream,
        dead_letters.ORIGIN_SEQUENCE: letter.origin_sequence,
        dead_letters.DELIVERIES: letter.deliveries,
        dead_letters.CONSUMER: letter.consumer,
        dead_letters.DIED_AT: _rfc3339(letter.died_at),
    }
    origin = (
        letter.id
        if letter.origin_sequence is None
        else f"{letter.origin_stream}-{letter.origin_sequence}"
    )
    headers = {name: str(value) for name, value in told.items() if value is not None}
    headers[MESSAGE_ID] = f"dlq-{origin}"
    return headers


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
