"""Dead letters: commands that gave up, kept where an operator can see and settle them.

A command dies when its agent refused it for good, when nobody acknowledged it as often
as it was delivered, or when the control plane waited for its effect in vain. Its message
goes to `dlq.<cluster>.<session>` with the headers below beside its own; what became of
it since is kept by the session service.
"""

from enum import StrEnum
from typing import Annotated, Final, NewType

from pydantic import Field, StringConstraints

from streamspace_common.contracts.base import Contract, Timestamp
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterIdText, CommandIdText, SessionIdText

DeadLetterId = NewType("DeadLetterId", str)
DeadLetterIdText = Annotated[DeadLetterId, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,80}$")]

CAUSE: Final = "x-cause"
REASON: Final = "x-reason"
DELIVERIES: Final = "x-deliveries"
CONSUMER: Final = "x-consumer"
ORIGIN_STREAM: Final = "x-origin-stream"
ORIGIN_SEQUENCE: Final = "x-origin-sequence"
DIED_AT: Final = "x-died-at"


class DeadLetterCause(StrEnum):
    """Who gave the command up."""

    TERMINATED = "terminated"
    """Its agent: it will never work."""
    MAX_DELIVERIES = "max-deliveries"
    """The stream: nobody acknowledged it, however often it was delivered."""
    GAVE_UP = "gave-up"
    """The control plane: no event confirmed its effect in time."""


class DeadLetterState(StrEnum):
    OPEN = "open"
    RETRIED = "retried"
    DISCARDED = "discarded"


class DeadLetter(Contract):
    """One attempt of a command that gave up, and what was made of it since."""

    id: DeadLetterIdText
    cluster_id: ClusterIdText
    session_id: SessionIdText
    command_id: CommandIdText | None = Field(
        default=None, description="Null where the message could not be read."
    )
    generation: int | None = None
    attempt: int | None = None
    action: str | None = None
    cause: DeadLetterCause
    reason: str = Field(description="Why it gave up, in words.")
    origin_stream: str
    origin_sequence: int | None = Field(
        default=None, description="Where the stream kept it; null where nobody knows any more."
    )
    deliveries: int | None = Field(default=None, description="How often it was delivered.")
    consumer: str | None = None
    headers: dict[str, str] = Field(default_factory=dict, description="As it was sent with.")
    state: DeadLetterState = DeadLetterState.OPEN
    died_at: Timestamp
    settled_at: Timestamp | None = None
    settled_by: Actor | None = None
    retried_as: CommandIdText | None = Field(
        default=None, description="The command that was sent instead."
    )
