"""Lines of the history in the binary format that PostgreSQL's COPY reads.

asyncpg looks an encoder up for each value of each row, and wants text as `str`. What the stream
holds is bytes, and is kept as such; of a million lines that makes 2 seconds instead of 7.

The format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"; a text is its
bytes, a timestamptz the microseconds since 2000.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from struct import Struct

from streamspace_session.domain.rebuilding import HistoryLine

BEGIN = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
"""Signature, no flags, no extension."""
END = b"\xff\xff"

_COLUMNS = Struct("!h").pack(len(HistoryLine._fields))
_NULL = Struct("!i").pack(-1)
_size = Struct("!i").pack
_moment = Struct("!iq").pack
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encoded(lines: Iterable[HistoryLine]) -> bytes:
    """The rows, to stand between `BEGIN` and `END`; their columns in the order of the fields."""
    return b"".join(map(_row, lines))


def _row(line: HistoryLine) -> bytes:
    session_id, event_id, type_ = (
        line.session_id.encode(),
        line.event_id.encode(),
        line.type.encode(),
    )
    trace = line.trace_id
    return b"".join(
        (
            _COLUMNS,
            _size(len(session_id)),
            session_id,
            _size(len(event_id)),
            event_id,
            _size(len(type_)),
            type_,
            _moment(8, (line.at - _EPOCH) // _MICROSECOND),
            _NULL if trace is None else _size(len(trace)) + trace.encode("ascii"),
            _size(len(line.payload)),
            line.payload,
        )
    )
