"""The streams and durable consumers, as data.

`bus.provision` makes the server agree with this table, `proto/asyncapi.yaml` prints
it under `x-jetstream`. Measured reasons for each figure stand beside it.
"""

from dataclasses import dataclass
from datetime import timedelta

from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.subjects import Subject, cluster_commands

_MIB = 1024 * 1024
_GIB = 1024 * _MIB


@dataclass(frozen=True)
class Stream:
    """One JetStream stream; sizes in bytes."""

    name: str
    subjects: tuple[str, ...]
    description: str
    max_age: timedelta
    max_bytes: int
    max_message_size: int
    max_messages_per_subject: int = -1
    max_consumers: int = 1000
    duplicate_window: timedelta = timedelta(minutes=10)
    message_ttl: bool = False
    immutable: bool = False
    """Neither deleting nor purging messages is possible, not even for us."""


@dataclass(frozen=True)
class Durable:
    """One durable pull consumer with explicit acknowledgement."""

    name: str
    stream: str
    filters: tuple[Subject, ...]
    ack_wait: timedelta = timedelta(seconds=20)
    """What was on its way to a client when its server left comes again after this: measured,
    30 seconds made a start take 30.1. Whoever works on something says so three times as often."""
    max_deliver: int = 8
    max_ack_pending: int = 64


COMMANDS = Stream(
    name="COMMANDS",
    subjects=("cmd.*.*",),
    description="The current desired state of each session, until its agent has acted on it.",
    max_age=timedelta(days=7),
    max_bytes=1 * _GIB,
    max_message_size=64 * 1024,
    # The newest command of a session replaces an older one, even a delivered one.
    max_messages_per_subject=1,
    # The server's default of 1000 would end the thousand-and-first cluster's enrolment.
    max_consumers=5000,
    message_ttl=True,
)

EVENTS = Stream(
    name="EVENTS",
    subjects=("evt.*.*.*.*",),
    description="Everything that happened, for 30 days.",
    max_age=timedelta(days=30),
    # Reaching it shortens history; it never fills the disk.
    max_bytes=20 * _GIB,
    max_message_size=256 * 1024,
    max_consumers=5000,
    # Agents publish here: without this a header could roll up and so wipe the stream.
    immutable=True,
)

DLQ = Stream(
    name="DLQ",
    subjects=("dlq.*.*",),
    description="Commands that gave up, with reason and deliveries.",
    max_age=timedelta(days=30),
    max_bytes=1 * _GIB,
    max_message_size=128 * 1024,
)

ADVISORIES = Stream(
    name="ADVISORIES",
    subjects=(
        f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{COMMANDS.name}.*",
        f"$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.{COMMANDS.name}.*",
    ),
    description="What the server says of commands it will not deliver again.",
    # As long as the commands themselves: the session service may be away meanwhile.
    max_age=timedelta(days=7),
    max_bytes=256 * _MIB,
    max_message_size=16 * 1024,
)

STREAMS: tuple[Stream, ...] = (COMMANDS, EVENTS, DLQ, ADVISORIES)


def agent_durable(cluster: ClusterId) -> Durable:
    """The one consumer all agents of a cluster share."""
    return Durable(
        name=f"agent-{cluster}",
        stream=COMMANDS.name,
        filters=(cluster_commands(cluster),),
        # How long the commands of an agent that was killed wait for its replica, or for its
        # own return. Not below 10 s: agents of the version before beat only so often.
        ack_wait=timedelta(seconds=15),
    )


SESSION_EVENTS = Durable(
    name="session-agents",
    stream=EVENTS.name,
    filters=(
        Subject("evt.*.session.*.command_received"),
        Subject("evt.*.session.*.phase_reached"),
        Subject("evt.*.session.*.started"),
        Subject("evt.*.session.*.hibernated"),
        Subject("evt.*.session.*.stopped"),
        Subject("evt.*.session.*.failed"),
        Subject("evt.*.session.*.command_expired"),
        Subject("evt.*.session.*.command_superseded"),
        Subject("evt.core.session.*.activity"),
        Subject("evt.core.template.*.*"),
        Subject("evt.core.cluster.*.enrolled"),
        Subject("evt.core.cluster.*.revoked"),
        Subject("evt.core.cluster.*.removed"),
        Subject("evt.core.user.*.changed"),
    ),
    # What a replica that was killed had in hand waits this long. Events take milliseconds,
    # and after the agents' own wait nobody should wait as long again.
    ack_wait=timedelta(seconds=10),
    # An event is never given up: it is retried until the database takes it.
    max_deliver=-1,
    max_ack_pending=1024,
)
"""Everything the session service acts on."""

SESSION_ADVISORIES = Durable(
    name="session-advisories",
    stream=ADVISORIES.name,
    filters=(Subject("$JS.EVENT.ADVISORY.CONSUMER.>"),),
    max_deliver=-1,
)
"""What the session service makes dead letters of."""

SERVICE_DURABLES: tuple[Durable, ...] = (SESSION_EVENTS, SESSION_ADVISORIES)
