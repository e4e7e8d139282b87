"""Between rows and the domain's values. JSON goes as text and comes parsed."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from streamspace_common.contracts.catalog import Protocol, ResourceAmounts
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId, UserId
from streamspace_common.contracts.sessions import (
    CommandAttempt,
    DesiredState,
    Owner,
    PhaseTiming,
    Reason,
    Session,
    SessionCommandState,
    SessionState,
)
from streamspace_session.domain import Action, Order, Tracked
from streamspace_session.store.statements import ORDER_PREFIX

Values = Mapping[Any, Any]

_ATTEMPTS: TypeAdapter[tuple[CommandAttempt, ...]] = TypeAdapter(tuple[CommandAttempt, ...])
_PHASES: TypeAdapter[tuple[PhaseTiming, ...]] = TypeAdapter(tuple[PhaseTiming, ...])

_SESSIONS: TypeAdapter[list[Session]] = TypeAdapter(list[Session])


def views(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Session]:
    """Rows of `sessions` as everybody sees them, all at once: a page is read often."""
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    for values in found:
        values["owner"] = {"user_id": values["owner_id"], "username": values["owner_name"]}
    return _SESSIONS.validate_python(found)


def tracked(values: Values, newest: Order | None = None) -> Tracked:
    """A row of `sessions`, its newest command joined to it or given."""
    return Tracked(
        session=_session(values),
        order=newest or order(values, ORDER_PREFIX),
        since=values["since"],
        cpu_milli=values["cpu_milli"],
        memory_bytes=values["memory_bytes"],
        restarts=values["restarts"],
        wanted_cluster=values["wanted_cluster"],
    )


def _session(values: Values) -> Session:
    phases = values["phases"]
    return Session.model_construct(
        id=SessionId(values["id"]),
        owner=Owner.model_construct(
            user_id=UserId(values["owner_id"]), username=values["owner_name"]
        ),
        template_id=values["template_id"],
        template_name=values["template_name"],
        template_display_name=values["template_display_name"],
        template_digest=values["template_digest"],
        cluster_id=values["cluster_id"],
        state=SessionState(values["state"]),
        desired=DesiredState(values["desired"]),
        reason=Reason(values["reason"]) if values["reason"] else None,
        message=values["message"],
        generation=values["generation"],
        protocol=Protocol(values["protocol"]),
        resources=ResourceAmounts.model_validate(values["resources"]),
        persistent_home=values["persistent_home"],
        phases=_PHASES.validate_python(phases) if phases else (),
        idle_timeout=values["idle_timeout"],
        max_duration=values["max_duration"],
        created_at=values["created_at"],
        updated_at=values["updated_at"],
        started_at=values["started_at"],
        terminated_at=values["terminated_at"],
        deadline=values["deadline"],
        last_activity_at=values["last_activity_at"],
        version=values["version"],
    )


def order(values: Values, prefix: str = "") -> Order:
    """A row of `commands`, its columns prefixed where it was joined."""
    earlier, newer = values[f"{prefix}earlier"], values[f"{prefix}superseded_by"]
    return Order(
        id=CommandId(values[f"{prefix}id"]),
        session_id=SessionId(values[f"{prefix}session_id"]),
        generation=values[f"{prefix}generation"],
        action=Action(values[f"{prefix}action"]),
        actor=Actor.model_validate(values[f"{prefix}actor"]),
        created_at=values[f"{prefix}created_at"],
        issued_at=values[f"{prefix}issued_at"],
        deadline=values[f"{prefix}deadline"],
        state=SessionCommandState(values[f"{prefix}state"]),
        attempt=values[f"{prefix}attempt"],
        delete_home=values[f"{prefix}delete_home"],
        error=values[f"{prefix}error"],
        delivered_at=values[f"{prefix}delivered_at"],
        acknowledged_at=values[f"{prefix}acknowledged_at"],
        completed_at=values[f"{prefix}completed_at"],
        superseded_by=CommandId(newer) if newer else None,
        earlier=_ATTEMPTS.validate_python(earlier) if earlier else (),
    )


def session_values(one: Tracked) -> dict[str, Any]:
    """All columns of a session's row."""
    session = one.session
    return {
        "id": session.id,
        "owner_id": session.owner.user_id,
        "owner_name": session.owner.username,
        "template_id": session.template_id,
        "template_name": session.template_name,
        "template_display_name": session.template_display_name,
        "template_digest": session.template_digest,
        "wanted_cluster": one.wanted_cluster,
        "resources": session.resources.model_dump_json(),
        "cpu_milli": one.cpu_milli,
        "memory_bytes": one.memory_bytes,
        "persistent_home": session.persistent_home,
        "idle_timeout": session.idle_timeout,
        "max_duration": session.max_duration,
        "created_at": session.created_at,
        "cluster_id": session.cluster_id,
        "state": session.state.value,
        "desired": session.desired.value,
        "reason": session.reason.value if session.reason else None,
        "message": session.message,
        "generation": session.generation,
        "command_id": one.order.id,
        "protocol": session.protocol.value,
        "phases": _PHASES.dump_json(session.phases).decode() if session.phases else "[]",
        "restarts": one.restarts,
        "updated_at": session.updated_at,
        "since": one.since,
        "started_at": session.started_at,
        "terminated_at": session.terminated_at,
        "deadline": session.deadline,
        "last_activity_at": session.last_activity_at,
        "idle_at": idle_at(session),
        "ends_at": ends_at(session),
        "version": session.version,
    }


def order_values(one: Order, cluster: ClusterId | None) -> dict[str, Any]:
    """All columns of a command's row."""
    return {
        "id": one.id,
        "session_id": one.session_id,
        "cluster_id": cluster,
        "generation": one.generation,
        "action": one.action.value,
        "state": one.state.value,
        "attempt": one.attempt,
        "actor": one.actor.model_dump_json(),
        "delete_home": one.delete_home,
        "error": one.error,
        "created_at": one.created_at,
        "issued_at": one.issued_at,
        "delivered_at": one.delivered_at,
        "acknowledged_at": one.acknowledged_at,
        "completed_at": one.completed_at,
        "deadline": one.deadline,
        "superseded_by": one.superseded_by,
        "earlier": _ATTEMPTS.dump_json(one.earlier).decode() if one.earlier else "[]",
    }


def idle_at(session: Session) -> datetime | None:
    """When it has been idle for too long, as far as is known now."""
    if session.idle_timeout is None or session.last_activity_at is None:
        return None
    return session.last_activity_at + timedelta(seconds=session.idle_timeout)


def ends_at(session: Session) -> datetime | None:
    """When its longest duration is over, counted from its first start."""
    if session.max_duration is None:
        return None
    return (session.started_at or session.created_at) + timedelta(seconds=session.max_duration)
