"""Any life a session can have, made up by hypothesis, keeps the promises.

Users ask, agents report (late, twice, out of order, of old generations), clusters fall
silent and time passes, in any order. Whatever happens: generations only grow, at most
the newest command is open, states that must end have a deadline, the end is final,
and every change of state was told.
"""

from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamspace_common.contracts.catalog import (
    Metadata,
    Protocol,
    ResourceAmounts,
    TemplateManifest,
    TemplateSpec,
)
from streamspace_common.contracts.events import (
    CommandReceived,
    PhaseReached,
    SessionFailed,
    SessionHibernated,
    SessionStarted,
    SessionStateChanged,
    SessionStopped,
)
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.sessions import (
    Owner,
    Phase,
    PhaseTiming,
    Reason,
    Session,
    SessionCommand,
    SessionState,
)
from streamspace_session import domain
from streamspace_session.domain import Asked, IllegalTransitionError, Timing, Trigger
from streamspace_session.domain.rebuilding import Projection, StoredEvent
from streamspace_session.policy import deadlines

TIMING = Timing()
USER = Actor(id="usr-" + "0" * 32)
MANIFEST = TemplateManifest(metadata=Metadata(name="d"), spec=TemplateSpec(display_name="D"))
REPORTS = (CommandReceived, SessionStarted, SessionHibernated, SessionStopped, SessionFailed)


class Life(RuleBasedStateMachine):
    @initialize(placed=st.booleans())
    def begin(self, placed):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.projection, self.commands = Projection(), {}
        self.tracked, created = domain.create(
            Asked(
                owner=Owner(user_id=USER.id, username="u"),
                template_id="c_d",
                template_name="d",
                digest="x",
                manifest=MANIFEST,
                resources=ResourceAmounts(),
                cpu_milli=1,
                memory_bytes=1,
                persistent_home=True,
                idle_timeout=None,
                max_duration=None,
                cluster="lab" if placed else None,
                wanted_cluster=None,
                protocol=Protocol.VNC,
            ),
            actor=USER,
            now=self.now,
            timing=TIMING,
        )
        self.commands[self.tracked.order.id] = self.tracked.order
        self.hear_of(created)

    def hear_of(self, *events):
        """As a reader of the stream hears of it, and nothing else."""
        self.projection.fold(
            StoredEvent(event.id, event.TYPE, event.about, event.at, None, event.to_json())
            for event in events
        )

    def take(self, change):
        before, after = change.before, change.after
        assert after.session.generation >= before.session.generation
        assert after.session.generation == after.order.generation
        assert after.session.version == before.session.version + (0 if change.is_empty else 1)
        states = [event for event in change.events if isinstance(event, SessionStateChanged)]
        told = [(event.from_state, event.to_state) for event in states]
        changed = before.state is not after.state
        assert told == ([(before.state, after.state)] if changed else [])
        if change.replaced is not None:
            assert not change.replaced.is_open
        if before.state is SessionState.TERMINATED:
            assert after.state is SessionState.TERMINATED
        if change.sends_command:
            domain.command_message(after, MANIFEST)
        if change.replaced is not None:
            self.commands[change.replaced.id] = change.replaced
        self.commands[after.order.id] = after.order
        self.hear_of(*change.events)
        self.tracked = after

    @rule()
    def the_stream_has_delivered(self):
        self.take(domain.delivered(self.tracked, now=self.now))

    @rule(ask=st.sampled_from([domain.hibernate, domain.wake, domain.delete, domain.retry]))
    def user_asks(self, ask):
        try:
            self.take(ask(self.tracked, actor=USER, now=self.now, timing=TIMING))
        except IllegalTransitionError:
            assert ask is not domain.delete

    @precondition(lambda self: self.tracked.session.cluster_id is None)
    @rule()
    def a_cluster_returns(self):
        if self.tracked.state is SessionState.PENDING:
            self.take(domain.place(self.tracked, "lab", Protocol.VNC, now=self.now, timing=TIMING))

    @rule(model=st.sampled_from(REPORTS), behind=st.integers(0, 2))
    def an_agent_reports(self, model, behind):
        extra = {"reason": Reason.START_FAILED, "message": "x"} if model is SessionFailed else {}
        self._hear(model, behind, extra)

    @rule(phase=st.sampled_from(Phase), behind=st.integers(0, 1))
    def a_phase_is_reached(self, phase, behind):
        timing = PhaseTiming(phase=phase, elapsed_ms=1)
        self._hear(PhaseReached, behind, {"timing": timing})

    def _hear(self, model, behind, extra):
        event = model(
            id="e",
            at=self.now,
            cluster_id="lab",
            instance="a",
            session_id=self.tracked.session.id,
            generation=max(1, self.tracked.session.generation - behind),
            **extra,
        )
        current = domain.applies(self.tracked, event)
        try:
            change = domain.report(self.tracked, event, now=self.now, timing=TIMING)
        except IllegalTransitionError:
            return
        assert current or change.is_empty
        self.take(change)

    @rule()
    def its_cluster_falls_silent(self):
        seen = {"starting", "running", "hibernating", "waking"}
        if self.tracked.state.value in seen:
            self.take(domain.lose_sight(self.tracked, now=self.now, timing=TIMING))

    @rule(missing=st.booleans())
    def an_inventory_comes(self, missing):
        if not domain.allows(self.tracked.state, Trigger.RESTART):
            return
        if missing:
            self.take(domain.restart(self.tracked, now=self.now, timing=TIMING))
        else:
            self.take(domain.observed(self.tracked, Trigger.STARTED, now=self.now, timing=TIMING))

    @rule(seconds=st.integers(1, 20_000), live=st.booleans())
    def time_passes(self, seconds, live):
        self.now += timedelta(seconds=seconds)
        deadline = self.tracked.session.deadline
        if deadline is None or self.now < deadline:
            return
        verdict = deadlines.overdue(self.tracked, self.now, cluster_live=live, timing=TIMING)
        match verdict:
            case deadlines.Extend(until=until):
                assert until > self.now
                self.take(domain.extend(self.tracked, until, now=self.now))
            case deadlines.Reissue():
                self.take(domain.reissue(self.tracked, now=self.now, timing=TIMING))
            case deadlines.GiveUpDeletion():
                self.take(domain.give_up_deletion(self.tracked, now=self.now, timing=TIMING))
            case deadlines.Fail(reason=reason, message=message):
                self.take(domain.fail(self.tracked, reason, message, now=self.now, timing=TIMING))

    @invariant()
    def what_must_end_has_a_deadline(self):
        session = self.tracked.session
        assert (session.deadline is None) == (TIMING.limit(session.state) is None)

    @invariant()
    def the_end_has_its_time_and_a_failure_its_reason(self):
        session = self.tracked.session
        assert (session.terminated_at is not None) == (session.state is SessionState.TERMINATED)
        if session.state is SessionState.FAILED:
            assert session.reason is not None
            assert session.message

    @invariant()
    def the_events_alone_tell_the_same(self):
        session = self.tracked.session
        told = Session.model_validate(self.projection.sessions[session.id])
        # Told are its changes of state and command; phases and deadlines go on between.
        silent = dict.fromkeys(("phases", "deadline", "updated_at", "version"))
        assert told.model_copy(update=silent) == session.model_copy(update=silent)
        commands = {
            id_: SessionCommand.model_validate(command)
            for id_, command in self.projection.commands.items()
        }
        assert commands == {id_: order.view() for id_, order in self.commands.items()}

    @invariant()
    def attempts_are_bounded(self):
        assert self.tracked.order.attempt <= TIMING.max_attempts


Life.TestCase.settings = settings(max_examples=200, stateful_step_count=30, derandomize=True)
TestLife = Life.TestCase
