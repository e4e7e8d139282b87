"""Live events as server-sent events, resumable without a gap.

Each event's `id` is its sequence in the EVENTS stream. A client that sends it back
as `Last-Event-ID` gets everything after it; one that sends none gets a `snapshot`
first. A client may see an event that a snapshot already contained: the session's
`version` tells. Streams end after a while by themselves, so that a signed-out
user's do; clients simply resume.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse

from streamspace_common.contracts import events
from streamspace_common.contracts.identity import Principal
from streamspace_common.contracts.ids import SessionIdText
from streamspace_common.contracts.requests import ListSessions, SessionMethods, SessionRequest
from streamspace_common.contracts.subjects import Aggregate
from streamspace_common.runtime.tracing import past_span
from streamspace_gateway.deps import CurrentUser, State, StateDep
from streamspace_gateway.feed_event import FeedEvent
from streamspace_gateway.ports import FeedOverflowError
from streamspace_gateway.routes.answers import problems

router = APIRouter(tags=["events"])

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=30, description="Resume after this event.")
]

NAMES = {
    events.SessionCreated.TYPE: "created",
    events.SessionStateChanged.TYPE: "state",
    events.PhaseReached.TYPE: "phase",
    events.SessionFailed.TYPE: "failure",
    events.SessionActivity.TYPE: "activity",
    events.CatalogAdded.TYPE: "catalog",
    events.CatalogRemoved.TYPE: "catalog",
    events.CatalogSynced.TYPE: "catalog",
    events.CatalogSyncFailed.TYPE: "catalog",
    events.ClusterEnrolled.TYPE: "cluster",
    events.ClusterRevoked.TYPE: "cluster",
    events.ClusterRemoved.TYPE: "cluster",
    events.ClusterPresenceChanged.TYPE: "cluster",
}
"""What each event type is called in an event stream; other types stay inside."""

_ONE_SESSION = frozenset({"created", "state", "phase", "failure", "activity"})
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An endless stream of server-sent events.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get(
    "/sessions/{session_id}/events",
    responses={**problems(401, 404), **_STREAM},
    response_class=StreamingResponse,
)
async def session_events(
    session_id: SessionIdText,
    request: Request,
    user: CurrentUser,
    state: StateDep,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """One session's progress: `snapshot`, then `phase`, `state`, `failure`, `activity`."""
    position = state.feed.position
    session = await state.services.call_unread(
        SessionMethods.GET, SessionRequest(principal=user, session_id=session_id)
    )

    def wanted(event: FeedEvent) -> bool:
        return (
            NAMES.get(event.type) in _ONE_SESSION
            and event.about is not None
            and event.about.aggregate is Aggregate.SESSION
            and event.about.id == session_id
        )

    resume = _resume_point(last_event_id, position)
    snapshot = None if resume is not None else session.decode()
    return _stream(request, state, wanted, snapshot, resume if resume is not None else position)


@router.get("/events", responses={**problems(401), **_STREAM}, response_class=StreamingResponse)
async def all_events(
    request: Request,
    user: CurrentUser,
    state: StateDep,
    everyone: bool = False,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """One's own sessions' `created`, `state` and `activity`, and `catalog` changes.

    Operators see `cluster` changes too, and everybody's sessions with `everyone`.
    """
    position = state.feed.position
    wanted = visible_to(user, everyone=everyone)
    resume = _resume_point(last_event_id, position)
    snapshot = None
    if resume is None:
        page = await state.services.call_unread(
            SessionMethods.LIST, ListSessions(principal=user, everyone=everyone, limit=200)
        )
        snapshot = page.decode()
    return _stream(request, state, wanted, snapshot, resume if resume is not None else position)


def visible_to(user: Principal, *, everyone: bool) -> Callable[[FeedEvent], bool]:
    """Which events of the whole system this user may see in `/events`."""
    sees_all = everyone and user.sees_everything

    def wanted(event: FeedEvent) -> bool:
        if event.type not in NAMES or event.about is None:
            return False
        match event.about.aggregate:
            case Aggregate.SESSION:
                # An agent's report names no owner; the control plane's events do.
                return event.about.origin == "core" and (sees_all or event.owner == user.user_id)
            case Aggregate.CLUSTER:
                return user.sees_everything
            case Aggregate.CATALOG:
                return True
            case _:
                return False

    return wanted


def _resume_point(last_event_id: str | None, position: int) -> int | None:
    """The sequence to go on after; None where the id is absent, or none of ours."""
    if last_event_id is None or not (last_event_id.isascii() and last_event_id.isdigit()):
        return None
    sequence = int(last_event_id)
    return sequence if sequence <= position else None


def _stream(
    request: Request,
    state: State,
    wanted: Callable[[FeedEvent], bool],
    snapshot: str | None,
    after: int,
) -> StreamingResponse:
    return StreamingResponse(
        _write(request, state, wanted, snapshot, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _write(
    request: Request,
    state: State,
    wanted: Callable[[FeedEvent], bool],
    snapshot: str | None,
    after: int,
) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    if snapshot is not None:
        yield frame(after, "snapshot", snapshot)
    try:
        async with asyncio.timeout(state.settings.feed_lifetime):
            async with aclosing(state.feed.follow(wanted, after=after)) as followed:
                async for event in followed:
                    if event is None:
                        yield ": still here\n\n"
                    else:
                        past_span(f"deliver {NAMES[event.type]}", 0, parent=event.traceparent)
                        yield frame(event.sequence, NAMES[event.type], event.public_json)
    except TimeoutError:
        yield ": resume to go on\n\n"
    except FeedOverflowError:
        yield ": too slow, resume to go on\n\n"


def frame(sequence: int, name: str, data: str) -> str:
    """One server-sent event; `data` is JSON without a line break."""
    return f"id: {sequence}\nevent: {name}\ndata: {data}\n\n"
