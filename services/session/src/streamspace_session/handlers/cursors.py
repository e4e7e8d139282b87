"""Cursors of lists that are ordered by a moment and an id."""

import base64
import binascii
from datetime import datetime

from streamspace_common.contracts.problems import Code, FieldProblem, ProblemError


def cursor_of(moment: datetime, id_: str) -> str:
    """Where a page ended."""
    return base64.urlsafe_b64encode(f"{moment.isoformat()} {id_}".encode()).decode().rstrip("=")


def position_of(cursor: str | None) -> tuple[datetime, str] | None:
    """Where the next page begins; None for the first one.

    Raises:
        ProblemError: `invalid-request`, when no list has given this cursor.
    """
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        moment, _, id_ = base64.urlsafe_b64decode(padded.encode()).decode().partition(" ")
        at = datetime.fromisoformat(moment)
    except (binascii.Error, UnicodeError, ValueError):
        raise not_a_cursor() from None
    if at.tzinfo is None or not id_ or "\x00" in id_:
        raise not_a_cursor()
    return at, id_


def not_a_cursor() -> ProblemError:
    return ProblemError.of(
        Code.INVALID_REQUEST,
        "Use `nextCursor` of the page before as `cursor`.",
        errors=(FieldProblem(pointer="cursor", detail="it is not a cursor that a list has given"),),
    )
