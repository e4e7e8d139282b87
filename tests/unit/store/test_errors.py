"""The drivers' many words for "PostgreSQL is away" become one of ours."""

import asyncpg
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from streamspace_common.store.errors import translate


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.PostgresError.new({"C": "57P01", "M": "terminating connection", "S": "FATAL"}),
        asyncpg.PostgresError.new({"C": "08006", "M": "connection failure", "S": "FATAL"}),
        # Its goodbye was read in the moment in which a statement was to be sent.
        asyncpg.InternalClientError(
            "cannot switch to state 11; another operation (2) is in progress"
        ),
        PoolTimeoutError(),
        asyncpg.PostgresError.new({"C": "53100", "M": "could not extend file", "S": "ERROR"}),
    ],
    ids=repr,
)
def test_a_lost_refused_or_crowded_connection_may_be_tried_again(error):
    assert translate(error) is not None


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.PostgresError.new({"C": "23505", "M": "duplicate key", "S": "ERROR"}),
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
        ValueError(),
    ],
    ids=repr,
)
def test_our_own_mistakes_stay_what_they_are(error):
    assert translate(error) is None
