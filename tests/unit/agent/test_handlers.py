"""From a command's bytes to its events and its outcome, without a bus or a desktop."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamspace_agent.domain import Death, Observed
from streamspace_agent.handlers import CommandHandler, Done, Outcome, Refuse, TryAgain
from streamspace_agent.ports import (
    PassingFailure,
    PermanentFailure,
    ReportPhase,
    SessionUnreachable,
    Superseded,
)
from streamspace_agent.reports import Reporter
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity, ResourceState
from streamspace_common.contracts.commands import (
    HibernateSession,
    StartSession,
    StopSession,
    WakeSession,
)
from streamspace_common.contracts.events import (
    AgentEvent,
    PhaseReached,
    SessionFailed,
    SessionStarted,
)
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.contracts.sessions import Phase, Reason, SessionSpec
from streamspace_common.relay.pump import Leg
from streamspace_common.testing.clock import FakeClock
from streamspace_common.testing.waiting import eventually

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
S = SessionId("ada-terminal-00000001")


class Remembered:
    """Events, as they were stored."""

    def __init__(self) -> None:
        self.events: list[AgentEvent] = []
        self.away = False

    async def publish(self, event: AgentEvent) -> None:
        while self.away:
            await asyncio.sleep(0)
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.KIND for event in self.events]


class ScriptedRuntime:
    """A runtime whose next effect fails, or waits, as a test says."""

    kind = RuntimeKind.NULL

    def __init__(self) -> None:
        self.there: Observed | None = None
        self.failure: Exception | None = None
        self.waits = False
        self.calls: list[str] = []
        self.pulls: tuple[str, ...] = ()
        self.undone = 0

    async def open(self) -> None: ...

    async def close(self, *, stop_sessions: bool) -> None: ...

    async def observe(self, session: SessionId) -> Observed | None:
        return self.there

    async def ensure_running(
        self, spec: SessionSpec, generation: int, report_phase: ReportPhase
    ) -> None:
        await self._act(f"start {generation}")
        for words in self.pulls:
            report_phase(Phase.PULLING, words, ongoing=True)
        if self.pulls:
            report_phase(Phase.PULLING, "1.2 GB in 9 s.")
        report_phase(Phase.READY)

    async def ensure_hibernated(self, spec: SessionSpec, generation: int) -> None:
        await self._act(f"hibernate {generation}")

    async def ensure_absent(
        self, session: SessionId, generation: int, *, delete_home: bool
    ) -> None:
        await self._act(f"remove {generation}{' with home' if delete_home else ''}")

    async def _act(self, what: str) -> None:
        self.calls.append(what)
        if self.failure is not None:
            raise self.failure
        if self.waits:
            try:
                await asyncio.Event().wait()
            finally:
                self.undone += 1

    async def watch(self) -> AsyncIterator[Observed]:
        await asyncio.Event().wait()
        yield Observed(S, 1, None)

    async def inventory(self) -> tuple[Observed, ...]:
        return (self.there,) if self.there else ()

    async def dial(self, session: SessionId, port: int) -> Leg:
        raise SessionUnreachable("scripted")

    async def capacity(self) -> Capacity:
        return Capacity(max_sessions=1, cpu=1, memory=1)

    async def trouble(self) -> str | None:
        return None


class Bench:
    def __init__(self, make_command: Any) -> None:
        self.events = Remembered()
        self.runtime = ScriptedRuntime()
        self.handler = CommandHandler(
            Reporter(ClusterId("lab"), "host-1"),
            self.runtime,
            self.events,
            FakeClock(now=NOW),
            leeway=timedelta(seconds=5),
        )
        self.make = make_command

    async def handle(self, kind: Any, *, last_try: bool = False, **fields: Any) -> Outcome:
        return await self.handler.handle(self.make(kind, **fields).to_json(), last_try=last_try)


@pytest.fixture
def bench(make_command: Any) -> Bench:
    return Bench(make_command)


async def test_a_start_is_received_carried_out_and_told_with_ids_made_of_what_happened(
    bench: Bench,
) -> None:
    assert await bench.handle(StartSession, attempt=3) == Done()
    assert bench.runtime.calls == ["start 1"]
    assert [event.id for event in bench.events.events] == [
        f"{S}.cmd-0000000a.3.command_received",
        f"{S}.cmd-0000000a.3.phase_reached.ready",
        f"{S}.cmd-0000000a.3.started",
    ]
    started = bench.events.events[-1]
    assert isinstance(started, SessionStarted)
    assert [timing.phase for timing in started.phases] == [Phase.READY]


async def test_what_is_said_of_a_phase_that_goes_on_is_told_each_time_and_kept_out_of_the_result(
    bench: Bench,
) -> None:
    bench.runtime.pulls = ("10 %", "60 %")
    assert await bench.handle(StartSession) == Done()
    told = [event for event in bench.events.events if isinstance(event, PhaseReached)]
    assert [event.id.partition("phase_reached.")[2] for event in told] == [
        "pulling.1",
        "pulling.2",
        "pulling",
        "ready",
    ]
    assert [event.timing.ongoing for event in told] == [True, True, False, False]
    started = bench.events.events[-1]
    assert isinstance(started, SessionStarted)
    assert [(t.phase, t.message) for t in started.phases] == [
        (Phase.PULLING, "1.2 GB in 9 s."),
        (Phase.READY, None),
    ]


@pytest.mark.parametrize(
    ("kind", "fields", "call", "result"),
    [
        (WakeSession, {}, "start 1", "started"),
        (HibernateSession, {}, "hibernate 1", "hibernated"),
        (StopSession, {}, "remove 1", "stopped"),
        (StopSession, {"delete_home": True}, "remove 1 with home", "stopped"),
    ],
)
async def test_each_command_has_its_effect_and_its_result(
    bench: Bench, kind: Any, fields: Any, call: str, result: str
) -> None:
    assert await bench.handle(kind, **fields) == Done()
    assert bench.runtime.calls == [call]
    assert (bench.events.kinds[0], bench.events.kinds[-1]) == ("command_received", result)


async def test_the_result_is_stored_before_the_command_is_settled(bench: Bench) -> None:
    bench.events.away = True
    handling = asyncio.create_task(bench.handle(StopSession))
    await eventually(lambda: bench.runtime.calls)
    assert not handling.done()
    bench.events.away = False
    assert await handling == Done()
    assert bench.events.kinds == ["command_received", "stopped"]


async def test_what_is_done_already_is_told_again_and_not_repeated(bench: Bench) -> None:
    bench.runtime.there = Observed(S, 1, ResourceState.RUNNING)
    assert await bench.handle(StartSession) == Done()
    assert bench.runtime.calls == []
    assert bench.events.kinds == ["command_received", "started"]


async def test_a_start_whose_desktop_has_died_is_answered_with_the_death(bench: Bench) -> None:
    bench.runtime.there = Observed(S, 1, ResourceState.DEAD, Death("i1", "It crashed."))
    assert await bench.handle(StartSession) == Done()
    failed = bench.events.events[-1]
    assert isinstance(failed, SessionFailed)
    assert (failed.reason, failed.message) == (Reason.DESKTOP_DIED, "It crashed.")
    assert bench.runtime.calls == []


async def test_a_passing_failure_is_tried_again_in_silence(bench: Bench) -> None:
    bench.runtime.failure = PassingFailure("not now")
    assert await bench.handle(StartSession) == TryAgain("not now")
    assert bench.events.kinds == ["command_received"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (StartSession, Reason.START_FAILED),
        (WakeSession, Reason.WAKE_FAILED),
        (HibernateSession, Reason.HIBERNATE_FAILED),
        (StopSession, Reason.STOP_FAILED),
    ],
)
async def test_the_last_failure_is_told_and_refused(
    bench: Bench, kind: Any, reason: Reason
) -> None:
    bench.runtime.failure = PassingFailure("still not")
    assert await bench.handle(kind, last_try=True) == Refuse(f"{reason}: still not")
    failed = bench.events.events[-1]
    assert isinstance(failed, SessionFailed)
    assert (failed.reason, failed.message) == (reason, "still not")


async def test_a_permanent_failure_is_told_at_once_with_its_own_reason(bench: Bench) -> None:
    bench.runtime.failure = PermanentFailure(Reason.MISSING_PROGRAM, "install it")
    outcome = await bench.handle(WakeSession)
    assert isinstance(outcome, Refuse)
    failed = bench.events.events[-1]
    assert isinstance(failed, SessionFailed)
    assert failed.reason is Reason.MISSING_PROGRAM


async def test_a_wake_that_fails_says_that_it_was_a_wake(bench: Bench) -> None:
    bench.runtime.failure = PermanentFailure(Reason.START_FAILED, "exit code 1")
    await bench.handle(WakeSession)
    failed = bench.events.events[-1]
    assert isinstance(failed, SessionFailed)
    assert failed.reason is Reason.WAKE_FAILED


async def test_a_runtime_that_knows_a_newer_generation_supersedes(bench: Bench) -> None:
    bench.runtime.failure = Superseded(9)
    assert await bench.handle(StartSession) == Done()
    assert bench.events.kinds == ["command_received", "command_superseded"]


async def test_a_newer_command_cuts_the_running_one_short(bench: Bench) -> None:
    bench.runtime.waits = True
    handling = asyncio.create_task(bench.handle(StartSession))
    await eventually(lambda: bench.runtime.calls)
    assert bench.handler.busy == (S,)
    bench.handler.newer(bench.make(StopSession, generation=2).to_json())

    assert await handling == Done()
    assert bench.runtime.undone == 1
    assert bench.events.kinds == ["command_received", "command_superseded"]
    assert not bench.handler.busy


async def test_a_repeated_command_does_not_cut_itself_short(bench: Bench) -> None:
    bench.runtime.waits = True
    handling = asyncio.create_task(bench.handle(StartSession))
    await eventually(lambda: bench.runtime.calls)
    bench.handler.newer(bench.make(StartSession, attempt=2).to_json())
    bench.handler.newer(b"not a command")
    await asyncio.sleep(0)
    assert not handling.done()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling


async def test_an_agent_that_ends_amid_a_start_tells_no_result(bench: Bench) -> None:
    bench.runtime.waits = True
    handling = asyncio.create_task(bench.handle(StartSession))
    await eventually(lambda: bench.runtime.calls)
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert bench.runtime.undone == 1
    assert "started" not in bench.events.kinds


async def test_a_start_is_given_up_at_its_deadline(bench: Bench) -> None:
    bench.runtime.waits = True
    outcome = await bench.handle(
        StartSession, deadline=NOW - timedelta(seconds=4, milliseconds=990)
    )
    assert isinstance(outcome, Refuse)
    failed = bench.events.events[-1]
    assert isinstance(failed, SessionFailed)
    assert failed.reason is Reason.DEADLINE_EXCEEDED
    assert bench.runtime.undone == 1


async def test_a_late_command_expires(bench: Bench) -> None:
    assert await bench.handle(StartSession, deadline=NOW - timedelta(seconds=6)) == Done()
    assert bench.events.kinds == ["command_expired"]


async def test_a_command_within_the_leeway_of_clocks_is_carried_out(bench: Bench) -> None:
    assert await bench.handle(StartSession, deadline=NOW - timedelta(seconds=4)) == Done()
    assert bench.runtime.calls == ["start 1"]


@pytest.mark.parametrize("payload", [b"", b"{", b"{}", b'{"action": "start_session"}', b"\xff"])
async def test_an_unreadable_command_is_refused(bench: Bench, payload: bytes) -> None:
    assert await bench.handler.handle(payload, last_try=False) == Refuse("unreadable command")
    assert bench.events.events == []


async def test_another_clusters_command_is_refused(bench: Bench) -> None:
    outcome = await bench.handle(StopSession, cluster_id=ClusterId("other"))
    assert isinstance(outcome, Refuse)
    assert bench.runtime.calls == []


async def test_a_command_the_agent_itself_failed_on_is_told_as_failed(bench: Bench) -> None:
    await bench.handler.give_up(bench.make(HibernateSession).to_json())
    await bench.handler.give_up(b"unreadable")
    (failed,) = bench.events.events
    assert isinstance(failed, SessionFailed)
    assert failed.reason is Reason.HIBERNATE_FAILED
