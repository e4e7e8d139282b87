"""What each credential may publish and subscribe on the bus: least rights, as data.

Whoever mints a NATS credential reads it from here. Every client also receives on
its own inbox prefix only, so that no client can listen to another one's answers.
"""

from dataclasses import dataclass

from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.streams import (
    ADVISORIES,
    COMMANDS,
    EVENTS,
    SESSION_ADVISORIES,
    SESSION_EVENTS,
    STREAMS,
    agent_durable,
)
from streamspace_common.contracts.subjects import AGENT_CREDENTIALS, agent_credential


@dataclass(frozen=True)
class Permissions:
    """Allow-lists; `inbox` is the prefix the client must use for its inboxes."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    inbox: str
    responses: int = 1
    """How many replies it may send to each request it receives."""


_READ_EVENTS = (
    "$JS.API.INFO",
    f"$JS.API.STREAM.INFO.{EVENTS.name}",
    f"$JS.API.CONSUMER.CREATE.{EVENTS.name}.>",
    f"$JS.API.CONSUMER.INFO.{EVENTS.name}.*",
    f"$JS.API.CONSUMER.DELETE.{EVENTS.name}.*",
    f"$JS.API.STREAM.MSG.GET.{EVENTS.name}",
    f"$JS.API.DIRECT.GET.{EVENTS.name}.>",
    f"$JS.API.DIRECT.GET.{EVENTS.name}",
    # Flow control of an ordered consumer.
    "$JS.FC.>",
)


def _service(name: str, publish: tuple[str, ...], subscribe: tuple[str, ...] = ()) -> Permissions:
    inbox = f"_INBOX_{name}"
    return Permissions(
        publish=publish,
        subscribe=(f"{inbox}.>", "$SRV.>", *subscribe),
        inbox=inbox,
    )


def _calls(*services: str) -> tuple[str, ...]:
    return tuple(f"svc.{service}.*" for service in services)


SERVICES: dict[str, Permissions] = {
    "gateway": _service(
        "gateway",
        publish=(*_calls("auth", "session", "catalog"), *_READ_EVENTS),
    ),
    "auth": _service(
        "auth",
        publish=(
            "evt.core.user.*.*",
            "evt.core.cluster.*.enrolled",
            "evt.core.cluster.*.revoked",
            "evt.core.cluster.*.removed",
        ),
        subscribe=("svc.auth.*", AGENT_CREDENTIALS),
    ),
    "session": _service(
        "session",
        publish=(
            # The session service provisions the streams and the clusters' durables.
            "$JS.API.>",
            # Flow control, for whoever rebuilds its projection with its credentials.
            "$JS.FC.>",
            f"$JS.ACK.{EVENTS.name}.{SESSION_EVENTS.name}.>",
            f"$JS.ACK.*.*.{EVENTS.name}.{SESSION_EVENTS.name}.>",
            f"$JS.ACK.{ADVISORIES.name}.{SESSION_ADVISORIES.name}.>",
            f"$JS.ACK.*.*.{ADVISORIES.name}.{SESSION_ADVISORIES.name}.>",
            "cmd.*.*",
            "dlq.*.*",
            "evt.core.session.*.*",
            "evt.core.cluster.*.presence_changed",
            "evt.core.cluster.*.drained",
            "evt.core.cluster.*.undrained",
            # Only auth can take a cluster's account away.
            "svc.auth.remove_cluster",
        ),
        subscribe=("svc.session.*", "hb.*.*"),
    ),
    "catalog-sync": _service(
        "catalog-sync",
        publish=("evt.core.template.*.*", "evt.core.catalog.*.*"),
        subscribe=("svc.catalog.*",),
    ),
    "vnc-proxy": _service(
        "vnc-proxy",
        publish=(
            "svc.session.redeem_ticket",
            "svc.session.check_admission",
            "rpc.*.open_tunnel",
            "evt.core.session.*.activity",
            # To cut a stream when its session ends.
            *_READ_EVENTS,
        ),
        subscribe=("ans.*.*.*",),
    ),
}


def _each_stream(*forms: str) -> tuple[str, ...]:
    return tuple(form.format(stream.name) for stream in STREAMS for form in forms)


# Messages are read one by one, without a consumer: whoever may create consumers on a
# stream may also change and delete those of others.
_LOOK_AT_STREAMS = (
    "$JS.API.INFO",
    *_each_stream(
        "$JS.API.STREAM.INFO.{}",
        "$JS.API.STREAM.MSG.GET.{}",
        "$JS.API.CONSUMER.LIST.{}",
        "$JS.API.STREAM.SNAPSHOT.{}",
    ),
    # Signs of life while a snapshot is taken.
    "$JS.SNAPSHOT.ACK.>",
)

OPERATORS: dict[str, Permissions] = {
    "ops": Permissions(
        publish=_LOOK_AT_STREAMS, subscribe=("_INBOX_ops.>",), inbox="_INBOX_ops", responses=0
    ),
    "restore": Permissions(
        publish=(
            *_LOOK_AT_STREAMS,
            *_each_stream("$JS.API.STREAM.RESTORE.{}", "$JS.API.STREAM.DELETE.{}"),
            "$JS.SNAPSHOT.RESTORE.>",
        ),
        subscribe=("_INBOX_restore.>",),
        inbox="_INBOX_restore",
        responses=0,
    ),
}
"""People with a command line: `ops` looks at streams and copies them, and can change nothing;
`restore` can also put a copy in a stream's place."""


def agent(cluster: ClusterId) -> Permissions:
    """An agent's rights: its own commands, events, heartbeats and requests; no streams."""
    durable = agent_durable(cluster).name
    return Permissions(
        publish=(
            f"$JS.API.CONSUMER.MSG.NEXT.{COMMANDS.name}.{durable}",
            f"$JS.ACK.{COMMANDS.name}.{durable}.>",
            # The acknowledgement subject newer servers announce.
            f"$JS.ACK.*.*.{COMMANDS.name}.{durable}.>",
            f"evt.{cluster}.session.*.*",
            f"hb.{cluster}.*",
            f"ans.{cluster}.*.*",
        ),
        # `$SRV` lets operators discover agents; nobody but the control plane may ask there.
        subscribe=(f"_INBOX_{cluster}.>", f"rpc.{cluster}.>", "$SRV.>"),
        inbox=f"_INBOX_{cluster}",
        responses=0,
    )


def joining(cluster: ClusterId) -> Permissions:
    """An enrolment's rights: asking auth for an agent's credential, and nothing else."""
    # An underscore, which no cluster's id has: agents' inboxes are others.
    inbox = f"_INBOX_join_{cluster}"
    return Permissions(
        publish=(agent_credential(cluster),), subscribe=(f"{inbox}.>",), inbox=inbox, responses=0
    )


ACCOUNTS = Permissions(
    publish=("$SYS.REQ.CLAIMS.UPDATE",),
    subscribe=("_INBOX_accounts.>",),
    inbox="_INBOX_accounts",
    responses=0,
)
"""Auth's second user, of the servers' own account: giving servers accounts' tokens. That they
are taken needs the operator's signature besides."""


@dataclass(frozen=True)
class Shared:
    """A subject that one account exports and another one imports."""

    name: str
    subject: str
    many_answers: bool = False
    """A pull is answered with many messages, everything else with one."""
    heard: bool = False
    """Who imports it hears what is said there; everything else is for saying something."""


def _shared(durable: str, cluster: str, credential: str) -> tuple[Shared, ...]:
    return (
        Shared("pull commands", f"$JS.API.CONSUMER.MSG.NEXT.{COMMANDS.name}.{durable}", True),
        Shared("settle commands", f"$JS.ACK.{COMMANDS.name}.{durable}.>"),
        Shared("settle commands, newer form", f"$JS.ACK.*.*.{COMMANDS.name}.{durable}.>"),
        Shared("publish events", f"evt.{cluster}.session.*.*"),
        Shared("heartbeats", f"hb.{cluster}.*"),
        Shared("agents' credentials", credential),
        Shared("requests to agents", f"rpc.{cluster}.*", heard=True),
        Shared("answers of agents", f"ans.{cluster}.*.*"),
    )


CORE_EXPORTS = _shared("*", "*", AGENT_CREDENTIALS)
"""What the control plane lets clusters have, each of them its own part."""


def cluster_imports(cluster: ClusterId) -> tuple[Shared, ...]:
    """One cluster's part of it."""
    return _shared(agent_durable(cluster).name, cluster, agent_credential(cluster))
