"""What the store may say in its own words; the drivers' errors stay inside.

ProblemError
└── StoreUnavailableError     PostgreSQL is away, starting, or too busy: try again soon
"""

from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from streamspace_common.contracts.problems import Code, Problem, ProblemError

_GONE: Final = frozenset({"57P01", "57P02", "57P03", "53300"})
"""Shutting down, crashed, starting up, too many connections. All of class 08 besides."""
_FULL: Final = frozenset({"53000", "53100", "53200"})
"""Out of something: of room on the disk, of memory."""
_BUSY: Final = frozenset({"40001", "40P01", "55P03", "57014"})
"""Serialization failure, deadlock, lock not available, statement timeout."""


class StoreUnavailableError(ProblemError):
    """The database could not take the transaction; nothing of it was kept."""

    def __init__(self, detail: str, retry_after: int = 2) -> None:
        super().__init__(Problem.of(Code.SERVICE_UNAVAILABLE, detail, retry_after=retry_after))


def translate(error: BaseException) -> StoreUnavailableError | None:
    """Our error for a lost, refused or overloaded connection; None for any other error."""
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailableError("The database is too busy. Try again in a moment.", 1)
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return unreachable()
        return _by_state(_sqlstate(error.orig)) or _by_type(error.orig)
    return _by_type(error)


def _sqlstate(error: BaseException | None) -> str | None:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _by_state(state: str | None) -> StoreUnavailableError | None:
    if state is None:
        return None
    if state in _GONE or state.startswith("08"):
        return unreachable()
    if state in _FULL:
        return StoreUnavailableError(
            "The database has no room left and stores nothing. An administrator has to make some."
        )
    if state in _BUSY:
        return StoreUnavailableError("The database is too busy. Try again in a moment.", 1)
    return None


def _by_type(error: BaseException | None) -> StoreUnavailableError | None:
    if isinstance(error, asyncpg.PostgresError):
        return _by_state(_sqlstate(error))
    if isinstance(error, asyncpg.InterfaceError) and "closed" in str(error):
        return unreachable()
    if isinstance(error, ConnectionError):
        return unreachable()
    if isinstance(error, asyncpg.InternalClientError) and "cannot switch to state" in str(error):
        # The server has said goodbye on an idle connection and is about to close it.
        return unreachable()
    cause = error.__cause__ if error is not None else None
    return _by_type(cause) if cause is not None else None


def unreachable() -> StoreUnavailableError:
    """Our error for a PostgreSQL that nobody can talk to."""
    return StoreUnavailableError("The database cannot be reached. Try again in a moment.")
