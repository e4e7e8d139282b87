"""The message an agent gets for a session's newest command.

A start, wake or hibernate carries the whole session spec with the manifest it was
created from: an agent reads templates from nowhere else.
"""

from typing import Any

from streamspace_common.contracts.catalog import TemplateManifest
from streamspace_common.contracts.commands import (
    HibernateSession,
    StartSession,
    StopSession,
    WakeSession,
)
from streamspace_common.contracts.ids import ClusterId, UserId, slug
from streamspace_common.contracts.sessions import Owner, Session, SessionSpec
from streamspace_session.domain.model import Action, Order, Tracked

Message = StartSession | StopSession | HibernateSession | WakeSession

_USER_ID_PREFIX = "usr-"


def home_name(owner: Owner) -> str:
    """A user's home: readable, and still the user's own when names are given anew."""
    return f"{slug(owner.username)}-{_id_digits(owner.user_id)}"


def _id_digits(user: UserId) -> str:
    return user.removeprefix(_USER_ID_PREFIX)[:8]


def command_message(tracked: Tracked, manifest: TemplateManifest | None) -> Message:
    """The newest command as its cluster receives it.

    Raises:
        ValueError: the session has no cluster, or a spec is due and no manifest given.
    """
    order, cluster = tracked.order, tracked.session.cluster_id
    if cluster is None:
        raise ValueError(f"session {tracked.session.id} has no cluster to send a command to")
    common = _common(order, cluster)
    if order.action is Action.STOP:
        return StopSession(**common, delete_home=order.delete_home)
    if manifest is None:
        raise ValueError(f"{order.action} of {tracked.session.id} needs the template's manifest")
    spec = _spec(tracked.session, manifest)
    match order.action:
        case Action.START:
            return StartSession(**common, spec=spec)
        case Action.WAKE:
            return WakeSession(**common, spec=spec)
        case Action.HIBERNATE:
            return HibernateSession(**common, spec=spec)


def _common(order: Order, cluster: ClusterId) -> dict[str, Any]:
    return {
        "command_id": order.id,
        "attempt": order.attempt,
        "session_id": order.session_id,
        "cluster_id": cluster,
        "generation": order.generation,
        "issued_at": order.issued_at,
        "deadline": order.deadline,
        "actor": order.actor,
    }


def _spec(session: Session, manifest: TemplateManifest) -> SessionSpec:
    return SessionSpec(
        session_id=session.id,
        owner=session.owner,
        template_id=session.template_id,
        template_digest=session.template_digest,
        template_manifest=manifest,
        resources=session.resources,
        persistent_home=session.persistent_home,
        home=home_name(session.owner),
        env=_environment(session),
    )


def _environment(session: Session) -> dict[str, str]:
    """What the control plane tells every session; the template's own is in its manifest."""
    return {
        "STREAMSPACE_SESSION_ID": session.id,
        "STREAMSPACE_USER": session.owner.username,
    }
