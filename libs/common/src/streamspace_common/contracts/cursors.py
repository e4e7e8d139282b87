"""Cursors of lists: where a page ended, opaque to whoever sends it back.

Words, written as a JSON list in base64 that is safe in an address. What they mean is the
list's own affair; what no list can have given is refused here, for all of them alike.
"""

import base64
import binascii
import json
from datetime import datetime

from streamspace_common.contracts.problems import Code, FieldProblem, ProblemError


def cursor_of(*words: str) -> str:
    """The cursor that names this place."""
    written = json.dumps(words, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(written.encode()).decode().rstrip("=")


def words_of(cursor: str, count: int) -> tuple[str, ...]:
    """The `count` words the cursor was made of.

    Raises:
        ProblemError: `invalid-request`, when no list has given this cursor.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        words = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeError, binascii.Error, ValueError, RecursionError):
        raise not_a_cursor() from None
    if not isinstance(words, list) or len(words) != count or not all(map(_is_word, words)):
        raise not_a_cursor()
    return tuple(words)


def moment_and_id(cursor: str | None) -> tuple[datetime, str] | None:
    """Where the next page begins of a list by time; None for the first one.

    Raises:
        ProblemError: `invalid-request`, as above.
    """
    if cursor is None:
        return None
    moment, id_ = words_of(cursor, 2)
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        raise not_a_cursor() from None
    if at.tzinfo is None or not id_:
        raise not_a_cursor()
    return at, id_


def not_a_cursor() -> ProblemError:
    return ProblemError.of(
        Code.INVALID_REQUEST,
        "Use `nextCursor` of the page before as `cursor`, or begin again without it.",
        errors=(
            FieldProblem(pointer="/cursor", detail="it is not a cursor that this list has given"),
        ),
    )


def _is_word(word: object) -> bool:
    """Text that a database can hold: no NUL, no half of a surrogate pair."""
    if not isinstance(word, str) or "\x00" in word:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in word)
