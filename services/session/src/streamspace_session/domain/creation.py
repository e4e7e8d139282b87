"""How a session comes to be, and how its viewer will reach it."""

from dataclasses import dataclass
from datetime import datetime

from streamspace_common.contracts.catalog import (
    Protocol,
    ResourceAmounts,
    RuntimeKind,
    TemplateManifest,
)
from streamspace_common.contracts.events import SessionCreated
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import (
    ClusterId,
    TemplateId,
    new_command_id,
    new_message_id,
    new_session_id,
)
from streamspace_common.contracts.sessions import DesiredState, Owner, Session, SessionState
from streamspace_session.domain.model import Action, Order, Timing, Tracked

RFB_PORT = 5900


@dataclass(frozen=True)
class Reach:
    """Where a session's stream is."""

    protocol: Protocol
    port: int
    path: str = "/"


def reach(manifest: TemplateManifest, runtime: RuntimeKind | None) -> Reach:
    """How a session of this template is reached on this kind of runtime.

    The process runtime runs its own X server, whatever the image of the same template
    would have served; unless the processes serve a web client themselves.
    """
    connection = manifest.spec.connection
    by_display = runtime is RuntimeKind.PROCESS and not manifest.spec.process_serves_http
    if by_display or connection is None:
        return Reach(Protocol.VNC, RFB_PORT)
    return Reach(connection.protocol, connection.port, connection.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for a session, with everything checked and resolved.

    `cluster` is where it was placed, None while no able cluster is online.
    """

    owner: Owner
    template_id: TemplateId
    template_name: str
    digest: str
    manifest: TemplateManifest
    resources: ResourceAmounts
    cpu_milli: int
    memory_bytes: int
    persistent_home: bool
    idle_timeout: int | None
    max_duration: int | None
    cluster: ClusterId | None
    wanted_cluster: ClusterId | None
    protocol: Protocol


def create(
    asked: Asked, *, actor: Actor, cause: str | None = None, now: datetime, timing: Timing
) -> tuple[Tracked, SessionCreated]:
    """A new session in `pending` with its first command, and the event that tells of it."""
    session_id = new_session_id(asked.owner.username, asked.template_name)
    deadline = now + timing.pending
    order = Order(
        id=new_command_id(),
        session_id=session_id,
        generation=1,
        action=Action.START,
        actor=actor,
        created_at=now,
        issued_at=now,
        deadline=deadline,
    )
    session = Session(
        id=session_id,
        owner=asked.owner,
        template_id=asked.template_id,
        template_name=asked.template_name,
        template_display_name=asked.manifest.spec.display_name,
        template_digest=asked.digest,
        cluster_id=asked.cluster,
        state=SessionState.PENDING,
        desired=DesiredState.RUNNING,
        generation=1,
        protocol=asked.protocol,
        resources=asked.resources,
        persistent_home=asked.persistent_home,
        idle_timeout=asked.idle_timeout,
        max_duration=asked.max_duration,
        created_at=now,
        updated_at=now,
        deadline=deadline,
        version=1,
    )
    tracked = Tracked(
        session=session,
        order=order,
        since=now,
        cpu_milli=asked.cpu_milli,
        memory_bytes=asked.memory_bytes,
        wanted_cluster=asked.wanted_cluster,
    )
    created = SessionCreated(
        id=str(new_message_id()),
        at=now,
        actor=actor,
        cause=cause,
        session_id=session.id,
        owner_id=session.owner.user_id,
        session=session,
        command_id=order.id,
        command=order.view(),
    )
    return tracked, created
