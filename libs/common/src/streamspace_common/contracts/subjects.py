"""Subjects, built and parsed in this one place.

| subject | what |
|---|---|
| `cmd.<cluster>.<session>` | the session's current desired state |
| `evt.<cluster>.session.<session>.<type>` | what an agent saw or did |
| `evt.core.<aggregate>.<id>.<type>` | what the control plane decided |
| `dlq.<cluster>.<session>` | commands that gave up |
| `hb.<cluster>.<instance>` | heartbeats and inventories (core NATS) |
| `svc.<service>.<method>` | requests between services |
| `svc.<service>.<method>.<cluster>` | requests of a cluster's agents to a service |
| `rpc.<cluster>.<method>` | requests to any live agent of a cluster |
| `ans.<cluster>.<asker>.<request>` | its answers |

A token that is not safe as a subject token is refused, never escaped: whoever
builds a subject has made a slug first.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from streamspace_common.contracts.ids import CORE, ClusterId, SessionId

Subject = NewType("Subject", str)

_TOKEN = re.compile(r"^[A-Za-z0-9_-]{1,128}$")


class SubjectError(ValueError):
    """A subject, or a token meant for one, is not of the grammar above."""


class Aggregate(StrEnum):
    """What a control plane event is about."""

    SESSION = "session"
    TEMPLATE = "template"
    CATALOG = "catalog"
    USER = "user"
    CLUSTER = "cluster"


@dataclass(frozen=True)
class CommandSubject:
    cluster: ClusterId
    session: SessionId


@dataclass(frozen=True)
class EventSubject:
    """`origin` is a cluster's id, or `core`."""

    origin: str
    aggregate: Aggregate
    id: str
    kind: str


def token(text: str) -> str:
    """`text` itself when it is one safe subject token.

    Raises:
        SubjectError: it is empty, too long, or holds anything but letters,
            digits, `-` and `_`.
    """
    if not _TOKEN.fullmatch(text):
        raise SubjectError(f"not a subject token: {text!r}")
    return text


def _cluster_token(cluster: str) -> str:
    if cluster == CORE:
        raise SubjectError("no cluster may be called 'core'")
    return token(cluster)


def command(cluster: ClusterId, session: SessionId) -> Subject:
    return Subject(f"cmd.{_cluster_token(cluster)}.{token(session)}")


def cluster_commands(cluster: ClusterId) -> Subject:
    """The filter of a cluster's durable consumer."""
    return Subject(f"cmd.{_cluster_token(cluster)}.>")


def parse_command(subject: str) -> CommandSubject:
    """Take a command's subject apart.

    Raises:
        SubjectError: it is not `cmd.<cluster>.<session>`.
    """
    match subject.split("."):
        case ["cmd", cluster, session]:
            return CommandSubject(ClusterId(_cluster_token(cluster)), SessionId(token(session)))
        case _:
            raise SubjectError(f"not a command subject: {subject!r}")


def agent_event(cluster: ClusterId, session: SessionId, kind: str) -> Subject:
    return Subject(f"evt.{_cluster_token(cluster)}.session.{token(session)}.{token(kind)}")


def core_event(aggregate: Aggregate, id_: str, kind: str) -> Subject:
    return Subject(f"evt.{CORE}.{aggregate}.{token(id_)}.{token(kind)}")


def parse_event(subject: str) -> EventSubject:
    """Take an event's subject apart.

    Raises:
        SubjectError: it is not `evt.<origin>.<aggregate>.<id>.<type>`.
    """
    match subject.split("."):
        case ["evt", origin, aggregate, id_, kind]:
            try:
                known = Aggregate(aggregate)
            except ValueError as error:
                raise SubjectError(f"unknown aggregate in {subject!r}") from error
            if origin != CORE and known is not Aggregate.SESSION:
                raise SubjectError(f"a cluster speaks of sessions only: {subject!r}")
            return EventSubject(token(origin), known, token(id_), token(kind))
        case _:
            raise SubjectError(f"not an event subject: {subject!r}")


def session_events(session: SessionId) -> list[Subject]:
    """Filters that match every event of one session, whoever published it."""
    return [Subject(f"evt.*.session.{token(session)}.>")]


def core_events(aggregate: Aggregate) -> Subject:
    return Subject(f"evt.{CORE}.{aggregate}.*.*")


def dead_letter(cluster: ClusterId, session: SessionId) -> Subject:
    return Subject(f"dlq.{_cluster_token(cluster)}.{token(session)}")


def heartbeat(cluster: ClusterId, instance: str) -> Subject:
    return Subject(f"hb.{_cluster_token(cluster)}.{token(instance)}")


def parse_heartbeat(subject: str) -> tuple[ClusterId, str]:
    """The cluster and instance a heartbeat came from.

    Raises:
        SubjectError: it is not `hb.<cluster>.<instance>`.
    """
    match subject.split("."):
        case ["hb", cluster, instance]:
            return ClusterId(_cluster_token(cluster)), token(instance)
        case _:
            raise SubjectError(f"not a heartbeat subject: {subject!r}")


def all_heartbeats() -> Subject:
    return Subject("hb.*.*")


def service(name: str, method: str) -> Subject:
    return Subject(f"svc.{token(name)}.{token(method)}")


def rpc(cluster: ClusterId, method: str) -> Subject:
    return Subject(f"rpc.{_cluster_token(cluster)}.{token(method)}")


def answer(cluster: ClusterId, asker: str, request: str) -> Subject:
    """Where a cluster's agent answers one request; the subject says who answers."""
    return Subject(f"ans.{_cluster_token(cluster)}.{token(asker)}.{token(request)}")


def all_answers(asker: str) -> Subject:
    return Subject(f"ans.*.{token(asker)}.*")


def of_cluster(service: str, method: str, cluster: ClusterId) -> Subject:
    """Where one cluster's agents ask a service; the subject says who asks."""
    return Subject(f"svc.{token(service)}.{token(method)}.{_cluster_token(cluster)}")


def of_any_cluster(service: str, method: str) -> Subject:
    return Subject(f"svc.{token(service)}.{token(method)}.*")


AGENT_CREDENTIALS = of_any_cluster("auth", "issue_credential")


def agent_credential(cluster: ClusterId) -> Subject:
    """Where a cluster's agents ask for their credentials."""
    return of_cluster("auth", "issue_credential", cluster)
