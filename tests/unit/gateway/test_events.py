"""Server-sent events: who sees what, and how a stream resumes."""

import json
from datetime import UTC, datetime

from streamspace_common.contracts import events
from streamspace_common.contracts.identity import Actor, Role
from streamspace_common.contracts.ids import SessionId, UserId
from streamspace_common.contracts.requests import SessionPage
from streamspace_common.contracts.sessions import Phase, PhaseTiming
from streamspace_gateway.feed_event import FeedEvent

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MINE = SessionId("user-desktop-0a1b2c3d")
THEIRS = SessionId("other-desktop-0a1b2c3d")
ME = UserId(f"usr-{3:032x}")
OTHER = UserId("usr-" + "9" * 32)


def activity(sequence: int, session: SessionId, owner: UserId) -> FeedEvent:
    event = events.SessionActivity(
        id=f"e{sequence}",
        at=NOW,
        actor=Actor(id=owner, address="10.1.2.3"),
        session_id=session,
        owner_id=owner,
        viewers=1,
        bytes_to_viewers=1,
        bytes_from_viewers=1,
    )
    return FeedEvent(sequence, event.subject, event.TYPE, event.to_json())


def phase(sequence: int, session: SessionId) -> FeedEvent:
    event = events.PhaseReached(
        id=f"e{sequence}",
        at=NOW,
        cluster_id="local",
        instance="a",
        session_id=session,
        generation=1,
        timing=PhaseTiming(phase=Phase.CREATED, elapsed_ms=1.5),
    )
    return FeedEvent(sequence, event.subject, event.TYPE, event.to_json())


def frames(text: str) -> list[tuple[int, str, dict[str, object]]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":")
        )
        if "event" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


async def follow(gateway, path: str, role: Role = Role.USER, **headers: str) -> list:
    answer = await gateway.client.get(path, headers={**gateway.as_(role), **headers})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    return frames(answer.text)


async def test_resuming_gives_everything_after_the_last_event(gateway):
    gateway.feed.stored = [activity(number, MINE, ME) for number in range(1, 6)]
    seen = await follow(gateway, "/api/v1/events", **{"Last-Event-ID": "2"})
    assert [number for number, _, _ in seen] == [3, 4, 5]


async def test_a_first_visit_begins_with_a_snapshot(gateway):
    gateway.services.answers["session.list"] = SessionPage(items=())
    gateway.feed.stored = [activity(1, MINE, ME)]
    assert await follow(gateway, "/api/v1/events") == [
        (1, "snapshot", {"items": [], "nextCursor": None})
    ]


async def test_an_id_from_the_future_begins_with_a_snapshot(gateway):
    gateway.services.answers["session.list"] = SessionPage(items=())
    [(_, name, _)] = await follow(gateway, "/api/v1/events", **{"Last-Event-ID": "99"})
    assert name == "snapshot"


async def test_nobody_sees_another_users_events(gateway):
    gateway.feed.stored = [activity(1, MINE, ME), activity(2, THEIRS, OTHER), phase(3, THEIRS)]
    seen = await follow(gateway, "/api/v1/events?everyone=true", **{"Last-Event-ID": "0"})
    assert [number for number, _, _ in seen] == [1]


async def test_operators_see_everybodys_when_they_ask(gateway):
    gateway.feed.stored = [activity(1, MINE, ME), activity(2, THEIRS, OTHER)]
    path = "/api/v1/events?everyone=true"
    seen = await follow(gateway, path, Role.OPERATOR, **{"Last-Event-ID": "0"})
    assert [number for number, _, _ in seen] == [1, 2]
    assert await follow(gateway, "/api/v1/events", Role.OPERATOR, **{"Last-Event-ID": "0"}) == []


async def test_an_event_is_read_once_for_all_its_followers(gateway, monkeypatch):
    read = []
    parse = events.parse_event

    def counting(type_name: str, payload: bytes) -> events.Event:
        read.append(type_name)
        return parse(type_name, payload)

    monkeypatch.setattr(events, "parse_event", counting)
    gateway.feed.stored = [activity(1, MINE, ME)]
    first = await follow(gateway, "/api/v1/events", **{"Last-Event-ID": "0"})
    assert await follow(gateway, "/api/v1/events", **{"Last-Event-ID": "0"}) == first
    assert read == [events.SessionActivity.TYPE]


async def test_addresses_of_actors_stay_inside(gateway):
    gateway.feed.stored = [activity(1, MINE, ME)]
    [(_, _, data)] = await follow(gateway, "/api/v1/events", **{"Last-Event-ID": "0"})
    assert data["actor"]["address"] is None
