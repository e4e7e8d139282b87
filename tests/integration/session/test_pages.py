"""Pages of sessions on a real PostgreSQL: always what the rows hold at that moment."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from streamspace_common.contracts.catalog import Protocol, ResourceAmounts
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import CommandId, SessionId, UserId
from streamspace_common.contracts.requests import ListSessions, SessionMethods, SessionPage
from streamspace_common.contracts.sessions import (
    DesiredState,
    Owner,
    Phase,
    PhaseTiming,
    Reason,
    Session,
    SessionCommandState,
    SessionState,
)
from streamspace_session.domain import Action, Order, Tracked
from streamspace_session.handlers.lifecycle import page_json
from streamspace_session.ports import ListQuery
from streamspace_session.store import SqlStore

OWNER = Owner(user_id=UserId(f"usr-{7:032x}"), username='Ada "the first" \u2603 \U0001f600')
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
WORDS = (
    None,
    "",
    "plain",
    'a "quoted" \\ word\n\t\x01',
    "\u00fc\u2028\u2603",
    "\U0001f600",
    "</>&",
)


def moment(draw: random.Random) -> datetime:
    return NOW + timedelta(microseconds=draw.choice([0, 1, 100_000, draw.randrange(10**12)]))


def tracked(draw: random.Random, number: int) -> Tracked:
    """A session with something, or nothing, in each of its fields."""

    def perhaps(value: Any) -> Any:
        return draw.choice([None, value])

    session = Session(
        id=SessionId(f"ada-desktop-{number:08x}"),
        owner=OWNER,
        template_id="starter_desktop",
        template_name="desktop",
        template_display_name=draw.choice(WORDS) or "Desktop",
        template_digest="sha256:1",
        cluster_id=perhaps("lab"),
        state=draw.choice(list(SessionState)),
        desired=draw.choice(list(DesiredState)),
        reason=perhaps(draw.choice(list(Reason))),
        message=draw.choice(WORDS),
        generation=draw.randrange(1, 9),
        protocol=draw.choice(list(Protocol)),
        resources=ResourceAmounts(cpu=draw.choice(["500m", "2"]), memory="1Gi"),
        persistent_home=draw.random() < 0.5,
        phases=tuple(
            PhaseTiming(
                phase=phase,
                elapsed_ms=draw.choice([0.0, 5.0, 1e-7, 12.345, 1e17]),
                message=draw.choice(WORDS),
            )
            for phase in draw.sample(list(Phase), draw.randrange(5))
        ),
        idle_timeout=perhaps(60),
        max_duration=perhaps(3600),
        created_at=NOW + timedelta(microseconds=number // 2),
        updated_at=moment(draw),
        started_at=perhaps(moment(draw)),
        terminated_at=perhaps(moment(draw)),
        deadline=perhaps(moment(draw)),
        last_activity_at=perhaps(moment(draw)),
        version=draw.randrange(1, 2**40),
    )
    order = Order(
        id=CommandId(f"command-{number}"),
        session_id=session.id,
        generation=session.generation,
        action=Action.START,
        actor=Actor(id=OWNER.user_id),
        created_at=NOW,
        issued_at=NOW,
        deadline=NOW,
        state=SessionCommandState.COMPLETED,
    )
    return Tracked(session=session, order=order, since=NOW, cpu_milli=1000, memory_bytes=2**30)


def everything(limit: int, after: tuple[datetime, SessionId] | None = None) -> ListQuery:
    return ListQuery(
        owner=OWNER.user_id,
        states=(),
        include_final=True,
        template=None,
        cluster=None,
        after=after,
        limit=limit,
    )


async def test_what_is_kept_written_reads_as_a_fresh_model_would(database):
    draw = random.Random(2026)
    made = [tracked(draw, number) for number in range(120)]
    store = SqlStore(database)
    async with store.transaction() as tx:
        await tx.sessions.insert(made)
    async with store.transaction() as tx:
        fresh = [(await tx.sessions.get(one.session.id)).session for one in made]
    assert fresh == [one.session for one in made]
    fresh.sort(key=lambda one: (one.created_at, one.id), reverse=True)
    for _ in ("read and written", "known"):
        page = page_json(await store.page(everything(200)))
        assert page == SessionPage(items=tuple(fresh)).to_json()
    seen, end = [], None
    while True:
        page = await store.page(everything(7, end))
        seen += page.items
        end = page.end
        if end is None:
            break
    assert seen == [one.to_json() for one in fresh]


async def test_any_write_to_a_row_shows_at_once_in_every_replica(lab):
    """Also one that leaves its version, and one that this service knows nothing of."""
    session = await lab.running()
    mine = ListSessions(principal=lab.admin)
    stores = [lab.replicas[0].service.store, SqlStore(lab.database)]

    async def listed() -> Session:
        page = await lab.call(SessionMethods.LIST, mine)
        for store in stores:
            found = await store.page(replace(everything(5), owner=None))
            assert found.items == (page.items[0].to_json(),)
        return page.items[0]

    before = await listed()
    await lab.ask(SessionMethods.KEEPALIVE, session.id)
    active = await listed()
    assert active == await lab.get(session.id)
    assert active.version == before.version
    assert active.last_activity_at != before.last_activity_at
    async with lab.database.transaction() as tx:
        await tx.execute(
            text("UPDATE sessions SET message = 'by hand' WHERE id = :id"), {"id": session.id}
        )
    assert (await listed()).message == "by hand"
