"""Pages of sessions: what is kept written, for how long, and what a page reads like."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from streamspace_common.contracts.ids import SessionId, UserId
from streamspace_common.contracts.requests import SessionPage
from streamspace_common.contracts.sessions import SessionState
from streamspace_session.handlers.lifecycle import page_json
from streamspace_session.ports import Listed, ListQuery
from streamspace_session.store.mapping import session_values
from streamspace_session.store.pages import Mark, SqlPages, WrittenSessions
from streamspace_session.store.statements import MARKED_COLUMNS

ONE, TWO = Mark(100, 1), Mark(101, 1)
EVERYTHING = ListQuery(
    owner=None,
    states=(),
    include_final=True,
    template=None,
    cluster=None,
    after=None,
    limit=2,
)


class Row(tuple):
    """As the driver gives rows: by number and by name."""

    __slots__ = ()
    names: ClassVar[Sequence[str]]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names.index(key) if isinstance(key, str) else key)


class MarkRow(Row):
    __slots__ = ()
    names = ("id", "xmin", "version", "created_at")


class WholeRow(Row):
    __slots__ = ()
    names = MARKED_COLUMNS


class ScriptedDatabase:
    """Answers with one result after the other, and remembers what was asked."""

    def __init__(self, *results: list[Row]) -> None:
        self._results = list(results)
        self.asked: list[tuple[Any, ...]] = []

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["ScriptedDatabase"]:
        yield self

    async def fetch(self, _statement: str, *values: Any) -> list[Row]:
        self.asked.append(values)
        return self._results.pop(0)


def mark_row(session, xmin: int) -> MarkRow:
    return MarkRow((session.id, xmin, session.version, session.created_at))


def whole_row(tracked, xmin: int) -> WholeRow:
    values = session_values(tracked) | {"xmin": xmin}
    values["resources"] = json.loads(values["resources"])
    values["phases"] = json.loads(values["phases"])
    return WholeRow(values[name] for name in MARKED_COLUMNS)


def test_a_session_is_found_under_the_write_it_was_kept_for_only():
    written = WrittenSessions()
    written.keep("a", ONE, b"{}")
    assert written.get("a", ONE) == b"{}"
    assert written.get("a", TWO) is None
    assert written.get("a", Mark(ONE.xmin, 2)) is None
    assert written.get("b", ONE) is None


def test_a_newer_write_takes_the_place_of_the_older():
    written = WrittenSessions(size=1)
    written.keep("a", ONE, b"old")
    written.keep("a", TWO, b"new")
    assert written.get("a", TWO) == b"new"


def test_the_longest_unused_is_forgotten_first():
    written = WrittenSessions(size=2)
    written.keep("a", ONE, b"a")
    written.keep("b", ONE, b"b")
    written.get("a", ONE)
    written.keep("c", ONE, b"c")
    assert [written.get(one, ONE) for one in "abc"] == [b"a", None, b"c"]


def test_what_is_too_long_is_not_kept():
    written = WrittenSessions(longest=3)
    written.keep("a", ONE, b"1234")
    assert written.get("a", ONE) is None


async def test_only_what_is_not_known_is_read_whole_and_the_order_stays(sessions):
    old, new = (sessions.in_state(SessionState.RUNNING) for _ in range(2))
    first = [mark_row(old.session, 7)]
    second = [mark_row(new.session, 8), mark_row(old.session, 7)]
    database = ScriptedDatabase(first, [whole_row(old, 7)], second, [whole_row(new, 8)], second)
    pages = SqlPages(database)
    await pages.page(EVERYTHING)
    page = await pages.page(EVERYTHING)
    assert page.items == (new.session.to_json(), old.session.to_json())
    assert database.asked == [(3,), ([old.session.id],), (3,), ([new.session.id],)]
    assert await pages.page(EVERYTHING) == page


async def test_a_session_that_left_between_two_looks_is_left_out_and_the_page_goes_on(sessions):
    seen = [sessions.in_state(SessionState.RUNNING) for _ in range(3)]
    marks = [mark_row(one.session, 7) for one in seen]
    pages = SqlPages(ScriptedDatabase(marks, [whole_row(seen[0], 7)]))
    page = await pages.page(EVERYTHING)
    assert page.items == (seen[0].session.to_json(),)
    assert page.end == (seen[1].session.created_at, seen[1].session.id)


async def test_every_condition_has_its_own_number(sessions):
    database = ScriptedDatabase([])
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    await SqlPages(database).page(
        ListQuery(
            owner=UserId("usr-1"),
            states=(SessionState.RUNNING,),
            include_final=False,
            template=None,
            cluster=None,
            after=(moment, SessionId("b")),
            limit=50,
        )
    )
    assert database.asked == [("usr-1", ["running"], moment, "b", 51)]


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_page_reads_as_its_contract_writes_it(sessions, count, more):
    items = tuple(sessions.in_state(state).session for state in list(SessionState)[:count])
    end = (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), SessionId("a-b-1")) if more else None
    page = page_json(Listed(tuple(one.to_json() for one in items), end))
    parsed = SessionPage.from_json(page)
    assert parsed.items == items
    assert (parsed.next_cursor is not None) is more
    assert parsed.to_json() == page
