"""What metrics and traces tell of the service while it works."""

import asyncio
import contextlib
import functools
from datetime import UTC, datetime

from prometheus_client import REGISTRY

from streamspace_common.bus import StartAt
from streamspace_common.contracts.events import ClusterEnrolled
from streamspace_common.contracts.ids import new_message_id
from streamspace_common.contracts.requests import SessionHistoryRequest, SessionMethods
from streamspace_common.contracts.sessions import SessionState
from streamspace_common.runtime.tracing import trace_id_of, tracing
from streamspace_common.testing.waiting import eventually
from streamspace_session.gauges import Gauges
from streamspace_session.rebuild import rebuild
from streamspace_session.store import SqlStore


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_events_worked_on_together_keep_their_own_traces(lab):
    async def start() -> tuple[str, str | None]:
        with tracing(None) as bound:
            accepted = await lab.create()
            return accepted.session.id, trace_id_of(bound)

    traces = dict(await asyncio.gather(*(start() for _ in range(8))))
    await asyncio.gather(*(lab.reaches(one, SessionState.RUNNING) for one in traces))
    await asyncio.gather(*(lab.told(one, "starting", "running") for one in traces))

    end = await lab.bus.last_sequence("EVENTS")
    seen = set()
    async with contextlib.aclosing(
        lab.bus.tail("EVENTS", ["evt.*.session.>"], start=StartAt.all())
    ) as messages:
        async for message in messages:
            session = message.subject.split(".")[3]
            assert trace_id_of(message.headers["traceparent"]) == traces[session], message.subject
            seen.add(session)
            if message.sequence >= end:
                break
    assert seen == set(traces)


async def test_gauges_count_what_is_there_and_show_zero_for_what_has_gone(lab):
    gauges = Gauges(lab.replicas[0].service.store, lab.bus)
    session = await lab.running()
    await gauges.measure()
    assert value("streamspace_sessions", state="running", agent="lab") == 1
    assert value("streamspace_agent_last_seen_timestamp_seconds", agent="lab") is not None

    await lab.delete(session.id)
    await lab.reaches(session.id, SessionState.TERMINATED)
    await gauges.measure()
    assert value("streamspace_sessions", state="running", agent="lab") == 0
    assert value("streamspace_sessions", state="terminated", agent="lab") == 1


async def test_a_start_is_timed_by_template_cluster_and_way(lab):
    labels = {"template": "starter_desktop", "agent": "lab", "path": "cold"}
    count = functools.partial(value, "streamspace_session_start_duration_seconds_count", **labels)
    before = count() or 0
    await lab.running()
    await eventually(lambda: (count() or 0) == before + 1)


async def test_events_that_nobody_works_on_are_seen_to_wait(lab):
    gauges = Gauges(SqlStore(lab.database), lab.bus)

    async def all_read() -> bool:
        await gauges.measure()
        return value("streamspace_projection_lag_seconds") == 0

    await eventually(all_read)
    await lab.stop_service()
    await lab.publish(
        ClusterEnrolled(
            id=str(new_message_id()),
            at=datetime.now(UTC),
            actor=lab.admin_actor,
            cluster_id="east",
            name="East",
        )
    )
    await gauges.measure()
    assert value("streamspace_consumer_pending_messages", consumer="session-agents") == 1
    assert (value("streamspace_projection_lag_seconds") or 0) > 0


async def test_what_nobody_asked_for_is_a_trace_of_its_own_in_stream_and_history(world):
    """A deadline that passes, or a cluster that falls silent, has no request behind it."""
    await world.start(offline_after=1, starting_limit=0.5, max_attempts=1)
    await world.template()
    agent = await world.agent()
    silent = [await world.running() for _ in range(2)]
    agent.deaf_to.add("start_session")
    late = (await world.create()).session
    await world.reaches(late.id, SessionState.FAILED, timeout=30)
    await agent.stop()
    for session in silent:
        await world.reaches(session.id, SessionState.UNKNOWN, timeout=30)
        await world.told(session.id, "starting", "running", "unknown")

    swept: dict[str, set[str]] = {}
    for session in (late, *silent):
        found = await world.call(
            SessionMethods.HISTORY,
            SessionHistoryRequest(principal=world.admin, session_id=session.id),
        )
        for entry in found.items:
            if entry.to_state in {SessionState.UNKNOWN, SessionState.FAILED}:
                assert entry.trace_id is not None
                swept.setdefault(session.id, set()).add(entry.trace_id)
    assert len(swept) == len(set.union(*swept.values())) == 3
    report = await rebuild(world.bus, world.database, "rebuilt", keep=False)
    assert report.differences == []
