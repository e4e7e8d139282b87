"""Dead letters: commands that gave up, for operators to look at and to settle."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from streamspace_common.contracts.dead_letters import (
    DeadLetter,
    DeadLetterIdText,
    DeadLetterState,
)
from streamspace_common.contracts.ids import ClusterIdText, SessionIdText
from streamspace_common.contracts.requests import (
    DeadLetterPage,
    DeadLetterRequest,
    ListDeadLetters,
    RetryAccepted,
    SessionMethods,
)
from streamspace_gateway.deps import ClientAddress, OperatorOnly, StateDep
from streamspace_gateway.routes.answers import problems

router = APIRouter(tags=["dead letters"])


@router.get("/dead-letters", responses=problems(401, 403))
async def list_dead_letters(
    user: OperatorOnly,
    state: StateDep,
    cluster_id: Annotated[ClusterIdText | None, Query(alias="clusterId")] = None,
    session_id: Annotated[SessionIdText | None, Query(alias="sessionId")] = None,
    states: Annotated[
        list[DeadLetterState] | None,
        Query(alias="state", description="Without it, those nobody has settled."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> DeadLetterPage:
    """Commands that gave up, the newest first."""
    return await state.services.call(
        SessionMethods.LIST_DEAD_LETTERS,
        ListDeadLetters(
            principal=user,
            cluster_id=cluster_id,
            session_id=session_id,
            states=tuple(states or ()),
            limit=limit,
            cursor=cursor,
        ),
    )


@router.post(
    "/dead-letters/{letter_id}/retry", status_code=202, responses=problems(401, 403, 404, 409)
)
async def retry_dead_letter(
    letter_id: DeadLetterIdText,
    user: OperatorOnly,
    state: StateDep,
    address: ClientAddress,
    response: Response,
) -> RetryAccepted:
    """Have the command's effect brought about after all, by a new command or attempt."""
    accepted = await state.services.call(
        SessionMethods.RETRY_DEAD_LETTER,
        DeadLetterRequest(principal=user, address=address, letter_id=letter_id),
    )
    response.headers["Location"] = f"/api/v1/sessions/{accepted.session.id}"
    return accepted


@router.post("/dead-letters/{letter_id}/discard", responses=problems(401, 403, 404, 409))
async def discard_dead_letter(
    letter_id: DeadLetterIdText, user: OperatorOnly, state: StateDep, address: ClientAddress
) -> DeadLetter:
    """Settle the letter without doing anything for its command."""
    return await state.services.call(
        SessionMethods.DISCARD_DEAD_LETTER,
        DeadLetterRequest(principal=user, address=address, letter_id=letter_id),
    )
