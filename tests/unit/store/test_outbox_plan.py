"""Which rows of a batch are published, and what keeps its order."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from streamspace_common.store.outbox_plan import Entry, plan


def event(id_: int, subject: str = "evt.core.session.s1.created") -> Entry:
    return Entry(id_, f"m{id_}", subject, {}, b"")


def command(id_: int, session: str, generation: int, attempt: int = 1) -> Entry:
    return Entry(
        id_, f"m{id_}", f"cmd.c1.{session}", {}, b"",
        key=session, generation=generation, attempt=attempt,
    )  # fmt: skip


def test_events_about_one_thing_share_a_lane_whatever_their_type() -> None:
    lanes = plan(
        [
            event(1),
            event(2, "evt.core.session.s2.created"),
            event(3, "evt.core.session.s1.state_changed"),
        ]
    ).lanes
    assert [[entry.id for entry in lane] for lane in lanes.values()] == [[1, 3], [2]]


def test_a_command_does_not_wait_for_its_sessions_events() -> None:
    assert len(plan([event(1), command(2, "s1", 1)]).lanes) == 2


def test_only_the_newest_command_of_a_session_is_published() -> None:
    planned = plan([command(1, "s1", 1), command(2, "s1", 2), command(3, "s2", 1)])
    assert sorted(e.id for lane in planned.lanes.values() for e in lane) == [2, 3]
    assert planned.unsent == [1]
    assert [
        (c.message_id, c.session_id, c.generation, c.by_generation) for c in planned.superseded
    ] == [("m1", "s1", 1, 2)]


def test_a_row_that_came_late_does_not_beat_a_newer_generation() -> None:
    planned = plan([command(1, "s1", 5), command(2, "s1", 4)])
    assert planned.unsent == [2]


def test_a_new_attempt_replaces_the_old_one_without_superseding_the_command() -> None:
    planned = plan([command(1, "s1", 5, attempt=1), command(2, "s1", 5, attempt=2)])
    assert planned.unsent == [1]
    assert planned.superseded == []


def test_what_is_not_newer_than_the_stored_one_is_left_out() -> None:
    old = replace(command(1, "s1", 2), stored_rank=(3, 1))
    same = replace(command(2, "s2", 3), stored_rank=(3, 1))
    newer = replace(command(3, "s3", 3, attempt=2), stored_rank=(3, 1))
    planned = plan([old, same, newer])
    assert [e.id for lane in planned.lanes.values() for e in lane] == [3]
    assert planned.unsent == [1, 2]
    assert [c.session_id for c in planned.superseded] == ["s1"]


entries = st.lists(
    st.one_of(
        st.builds(lambda s: ("event", s, 0, 0), st.integers(0, 3)),
        st.builds(
            lambda s, g, a: ("command", s, g, a),
            st.integers(0, 3),
            st.integers(1, 4),
            st.integers(1, 3),
        ),
    ),
    max_size=40,
)


@given(entries)
def test_every_row_is_published_in_order_or_beaten_by_a_newer_one(
    rows: list[tuple[str, int, int, int]],
) -> None:
    batch = [
        event(n, f"evt.core.session.s{s}.created")
        if kind == "event"
        else command(n, f"s{s}", generation, attempt)
        for n, (kind, s, generation, attempt) in enumerate(rows)
    ]
    planned = plan(batch)
    published = [entry for lane in planned.lanes.values() for entry in lane]
    assert sorted([e.id for e in published] + planned.unsent) == [e.id for e in batch]
    for lane in planned.lanes.values():
        assert [e.id for e in lane] == sorted(e.id for e in lane)
    for row in batch:
        if row.id in planned.unsent:
            [winner] = [e for e in published if e.key == row.key]
            assert winner.rank >= row.rank
