"""Sessions: create, look, connect, hibernate, wake, end."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, Query, Request, Response

from streamspace_common.contracts.base import Timestamp
from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.ids import (
    ClusterIdText,
    SessionId,
    SessionIdText,
    TemplateIdText,
    UserIdText,
)
from streamspace_common.contracts.requests import (
    ConnectSession,
    CreateSession,
    DeleteSession,
    KeptAlive,
    ListSessions,
    ResourceRequest,
    SessionAccepted,
    SessionAt,
    SessionCommands,
    SessionHistory,
    SessionHistoryRequest,
    SessionMethods,
    SessionPage,
    SessionRequest,
    Ticket,
)
from streamspace_common.contracts.sessions import Session, SessionState
from streamspace_gateway.deps import ClientAddress, CurrentUser, StateDep, etag
from streamspace_gateway.routes.answers import problems
from streamspace_gateway.routes.bodies import (
    AcceptedAnswer,
    ConnectAnswer,
    ConnectBody,
    CreateSessionBody,
    ResourcesBody,
)
from streamspace_gateway.settings import GatewaySettings

TICKET_PROTOCOL = "streamspace.ticket."
_MOMENT = "2026-01-02T03:04:05Z"

router = APIRouter(tags=["sessions"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key and body within 24 hours give the same session.",
    ),
]


@router.get("/sessions", response_model=SessionPage, responses=problems(401))
async def list_sessions(
    user: CurrentUser,
    state: StateDep,
    states: Annotated[list[SessionState] | None, Query(alias="state")] = None,
    template_id: Annotated[TemplateIdText | None, Query(alias="templateId")] = None,
    cluster_id: Annotated[ClusterIdText | None, Query(alias="clusterId")] = None,
    owner_id: Annotated[UserIdText | None, Query(alias="ownerId")] = None,
    everyone: bool = False,
    include_final: Annotated[bool, Query(alias="includeFinal")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """One's own sessions, newest first; `everyone` shows operators all of them."""
    # The page is the service's own contract: reading it here only to write it again would
    # take most of this request's time.
    page = await state.services.call_unread(
        SessionMethods.LIST,
        ListSessions(
            principal=user,
            states=tuple(states or ()),
            template_id=template_id,
            cluster_id=cluster_id,
            owner_id=owner_id,
            everyone=everyone,
            include_final=include_final,
            limit=limit,
            cursor=cursor,
        ),
    )
    return Response(page, media_type="application/json")


@router.post("/sessions", status_code=202, responses=problems(401, 403, 404, 409))
async def create_session(
    body: CreateSessionBody,
    user: CurrentUser,
    state: StateDep,
    address: ClientAddress,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> AcceptedAnswer:
    """Start a session from a template; follow `/sessions/{id}/events` for its progress."""
    state.rates.check("create", user.user_id)
    accepted = await state.services.call(
        SessionMethods.CREATE,
        CreateSession(
            principal=user,
            address=address,
            template=body.template,
            resources=_resources(body.resources),
            persistent_home=body.persistent_home,
            cluster_id=body.cluster_id,
            idle_timeout=body.idle_timeout,
            max_duration=body.max_duration,
            idempotency_key=idempotency_key,
        ),
    )
    return _accepted(accepted, response)


@router.get("/sessions/{session_id}", responses=problems(401, 404))
async def get_session(
    session_id: SessionIdText,
    user: CurrentUser,
    state: StateDep,
    response: Response,
    at: Annotated[
        Timestamp | None,
        Query(description="Show it as it was at this moment (RFC 3339).", examples=[_MOMENT]),
    ] = None,
) -> Session:
    """The session as it is, or as it was."""
    if at is not None:
        return await state.services.call(
            SessionMethods.AT, SessionAt(principal=user, session_id=session_id, at=at)
        )
    found = await state.services.call(
        SessionMethods.GET, SessionRequest(principal=user, session_id=session_id)
    )
    response.headers["ETag"] = etag(found.version)
    return found


@router.delete("/sessions/{session_id}", status_code=202, responses=problems(401, 404, 409))
async def delete_session(
    session_id: SessionIdText,
    user: CurrentUser,
    state: StateDep,
    address: ClientAddress,
    response: Response,
    delete_home: Annotated[
        bool, Query(alias="deleteHome", description="Remove the user's home too.")
    ] = False,
) -> AcceptedAnswer:
    """End a session; asking twice is no error."""
    accepted = await state.services.call(
        SessionMethods.DELETE,
        DeleteSession(
            principal=user, address=address, session_id=session_id, delete_home=delete_home
        ),
    )
    return _accepted(accepted, response)


@router.post("/sessions/{session_id}/hibernate", status_code=202, responses=problems(401, 404, 409))
async def hibernate_session(
    session_id: SessionIdText,
    user: CurrentUser,
    state: StateDep,
    address: ClientAddress,
    response: Response,
) -> AcceptedAnswer:
    """Stop what runs and keep the home."""
    accepted = await state.services.call(
        SessionMethods.HIBERNATE,
        SessionRequest(principal=user, address=address, session_id=session_id),
    )
    return _accepted(accepted, response)


@router.post("/sessions/{session_id}/wake", status_code=202, responses=problems(401, 404, 409))
async def wake_session(
    session_id: SessionIdText,
    user: CurrentUser,
    state: StateDep,
    address: ClientAddress,
    response: Response,
) -> AcceptedAnswer:
    """Bring a hibernated session back."""
    accepted = await state.services.call(
        SessionMethods.WAKE,
        SessionRequest(principal=user, address=address, session_id=session_id),
    )
    return _accepted(accepted, response)


@router.post("/sessions/{session_id}/connect", responses=problems(401, 404, 409))
async def connect_session(
    session_id: SessionIdText,
    user: CurrentUser,
    state: StateDep,
    address: ClientAddress,
    request: Request,
    response: Response,
    body: ConnectBody | None = None,
) -> ConnectAnswer:
    """Get a ticket for the stream: single use, at most 60 seconds."""
    state.rates.check("connect", user.user_id)
    ticket = await state.services.call(
        SessionMethods.CONNECT,
        ConnectSession(
            principal=user,
            address=address,
            session_id=session_id,
            role=(body or ConnectBody()).role,
        ),
    )
    response.headers["Cache-Control"] = "no-store"
    return connect_answer(ticket, str(request.base_url), state.settings)


@router.post("/sessions/{session_id}/keepalive", responses=problems(401, 404, 409))
async def keep_alive(
    session_id: SessionIdText, user: CurrentUser, state: StateDep, address: ClientAddress
) -> KeptAlive:
    """Count as activity, so that the session does not hibernate for idleness."""
    return await state.services.call(
        SessionMethods.KEEPALIVE,
        SessionRequest(principal=user, address=address, session_id=session_id),
    )


@router.get("/sessions/{session_id}/commands", responses=problems(401, 404))
async def list_commands(
    session_id: SessionIdText, user: CurrentUser, state: StateDep
) -> SessionCommands:
    """What was asked of the session, and what came of it."""
    return await state.services.call(
        SessionMethods.COMMANDS, SessionRequest(principal=user, session_id=session_id)
    )


@router.get("/sessions/{session_id}/history", responses=problems(401, 404))
async def get_history(
    session_id: SessionIdText,
    user: CurrentUser,
    state: StateDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 200,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> SessionHistory:
    """All that happened to the session, oldest first: what, when, by whom and why."""
    return await state.services.call(
        SessionMethods.HISTORY,
        SessionHistoryRequest(principal=user, session_id=session_id, limit=limit, cursor=cursor),
    )


def connect_answer(ticket: Ticket, base_url: str, settings: GatewaySettings) -> ConnectAnswer:
    """Where a ticket is used: the relay's address, by setting or beside the one just used."""
    base = (settings.stream_url or _relay_beside(base_url, settings.stream_port)).rstrip("/")
    if ticket.protocol is Protocol.VNC:
        url = f"{base}/streams/{ticket.session_id}"
        protocols: tuple[str, ...] = ("binary", f"{TICKET_PROTOCOL}{ticket.ticket}")
    else:
        url = _apps_url(base, ticket.session_id, settings.apps_domain)
        protocols = ()
    return ConnectAnswer(
        url=url,
        protocols=protocols,
        ticket=ticket.ticket,
        role=ticket.role,
        protocol=ticket.protocol,
        expires_at=ticket.expires_at,
    )


def _relay_beside(base_url: str, port: int) -> str:
    parts = urlsplit(base_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    host = parts.hostname or "localhost"
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{port}"


def _apps_url(base: str, session: SessionId, apps_domain: str) -> str:
    parts = urlsplit(base)
    scheme = "https" if parts.scheme in {"wss", "https"} else "http"
    port = f":{parts.port}" if parts.port else ""
    return f"{scheme}://{session}.{apps_domain}{port}/_streamspace/enter"


def _resources(body: ResourcesBody | None) -> ResourceRequest | None:
    return None if body is None else ResourceRequest(cpu=body.cpu, memory=body.memory)


def _accepted(accepted: SessionAccepted, response: Response) -> AcceptedAnswer:
    response.headers["Location"] = f"/api/v1/sessions/{accepted.session.id}"
    response.headers["ETag"] = etag(accepted.session.version)
    if accepted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return AcceptedAnswer(session=accepted.session, command_id=accepted.command_id)
