"""However an agent, its cluster and time misbehave: once they stop, everybody agrees.

The model is one session, one agent with the resources it really holds, the stream with
the session's newest command, and reports and inventories on their way. Hypothesis lets
them crash, die, vanish, come late and be asked for all kinds of things in any order. Then
all faults end, and soon the database says what is true, and what is true is what was asked.
"""

from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from streamspace_common.contracts.catalog import (
    Metadata,
    Protocol,
    ResourceAmounts,
    TemplateManifest,
    TemplateSpec,
)
from streamspace_common.contracts.clusters import Inventory, ResourceReport, ResourceState
from streamspace_common.contracts.events import (
    CommandReceived,
    CommandSuperseded,
    SessionFailed,
    SessionHibernated,
    SessionStarted,
    SessionStopped,
)
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.sessions import DesiredState, Owner, Reason, SessionState
from streamspace_session import domain
from streamspace_session.domain import Action, Asked, IllegalTransitionError, Order, Timing
from streamspace_session.handlers.presence import decided
from streamspace_session.policy import deadlines
from streamspace_session.reconcile import compare

TIMING = Timing()
GRACE = timedelta(seconds=10)
USER = Actor(id="usr-" + "0" * 32)
LAB = "lab"
MANIFEST = TemplateManifest(metadata=Metadata(name="d"), spec=TemplateSpec(display_name="D"))
_LONGER_THAN_ANY_LIMIT = timedelta(minutes=11)
_ROUNDS = 40


@dataclass(frozen=True)
class Held:
    generation: int
    state: ResourceState


@dataclass
class Agent:
    """What a cluster really holds of the session, and the highest generation it acted on."""

    held: Held | None = None
    acted: int = 0

    def carry_out(self, order: Order) -> type | None:
        """Do what the command asks; the report of it, or None where it is outdated."""
        if order.generation < self.acted:
            return None
        self.acted = order.generation
        match order.action:
            case Action.START | Action.WAKE:
                self.held = Held(order.generation, ResourceState.RUNNING)
                return SessionStarted
            case Action.HIBERNATE:
                self.held = Held(order.generation, ResourceState.HIBERNATED)
                return SessionHibernated
            case Action.STOP:
                self.held = None
                return SessionStopped


class Convergence(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.agent, self.online = Agent(), True
        self.reports, self.inventories = deque(), deque()
        self.tracked, _ = domain.create(
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
                cluster=LAB,
                wanted_cluster=None,
                protocol=Protocol.VNC,
            ),
            actor=USER,
            now=self.now,
            timing=TIMING,
        )
        self.stream = self.tracked.order

    # What the control plane does.

    def take(self, change):
        self.tracked = change.after
        if change.sends_command:
            self.stream = change.after.order

    def tick(self, seconds=1.0):
        self.now += timedelta(seconds=seconds)

    @rule(ask=st.sampled_from([domain.hibernate, domain.wake, domain.delete, domain.retry]))
    def somebody_asks(self, ask):
        self.tick()
        try:
            self.take(ask(self.tracked, actor=USER, now=self.now, timing=TIMING))
        except IllegalTransitionError:
            return

    @rule(seconds=st.sampled_from([1, 20, 70, 301, 700]))
    def time_passes(self, seconds):
        self.tick(seconds)
        self.sweep()

    def sweep(self):
        if not self.online and domain.allows(self.tracked.state, domain.Trigger.LOST_SIGHT):
            self.take(domain.lose_sight(self.tracked, now=self.now, timing=TIMING))
        deadline = self.tracked.session.deadline
        if deadline is None or self.now < deadline:
            return
        verdict = deadlines.overdue(self.tracked, self.now, cluster_live=self.online, timing=TIMING)
        match verdict:
            case deadlines.Extend(until=until):
                self.take(domain.extend(self.tracked, until, now=self.now))
            case deadlines.Reissue():
                self.take(domain.reissue(self.tracked, now=self.now, timing=TIMING))
            case deadlines.GiveUpDeletion():
                self.take(domain.give_up_deletion(self.tracked, now=self.now, timing=TIMING))
            case deadlines.Fail(reason=reason, message=message):
                self.take(domain.fail(self.tracked, reason, message, now=self.now, timing=TIMING))

    @precondition(lambda self: self.reports)
    @rule()
    def a_report_arrives(self):
        self.tick(0.1)
        event = self.reports.popleft()
        try:
            self.take(domain.report(self.tracked, event, now=self.now, timing=TIMING))
        except IllegalTransitionError:
            return

    @precondition(lambda self: self.inventories)
    @rule()
    def an_inventory_arrives(self):
        self.tick(0.1)
        self.compare(self.inventories.popleft())

    def compare(self, inventory):
        sessions = {self.tracked.session.id: self.tracked}
        ended = self.tracked.state.is_final
        named = [one.session_id for one in inventory.resources]
        known = {} if ended and not named else sessions
        for decision in compare(LAB, inventory, known, self.now, grace=GRACE, timing=TIMING):
            try:
                self.take(decided(self.tracked, decision, self.now, TIMING))
            except IllegalTransitionError:
                return

    # What the agent does.

    @precondition(lambda self: self.online and self.stream is not None)
    @rule(crash=st.booleans())
    def the_agent_works(self, crash):
        """A crash comes between the effect and its report: the command comes again."""
        order = self.stream
        said = self.agent.carry_out(order)
        if crash:
            return
        self.stream = None
        if said is None:
            self.say(CommandSuperseded, order, newer_generation=self.agent.acted)
            return
        self.say(CommandReceived, order)
        self.say(said, order)

    @precondition(lambda self: self.online and self.stream is not None)
    @rule()
    def the_agent_gives_up(self):
        order, self.stream = self.stream, None
        self.agent.acted = max(self.agent.acted, order.generation)
        self.say(SessionFailed, order, reason=Reason.NO_SPACE, message="no space")

    @precondition(lambda self: self.online and self.stream is not None)
    @rule()
    def the_command_is_lost(self):
        """Delivered as often as may be, and never acknowledged."""
        self.stream = None

    @precondition(lambda self: self.agent.held is not None)
    @rule()
    def what_it_holds_vanishes(self):
        self.agent.held = None

    @precondition(lambda self: self.agent.held is not None)
    @rule()
    def its_desktop_dies_unseen(self):
        if self.agent.held.state is ResourceState.RUNNING:
            self.agent.held = replace(self.agent.held, state=ResourceState.DEAD)

    @precondition(lambda self: self.online)
    @rule()
    def the_agent_tells_what_it_holds(self):
        self.inventories.append(self.inventory())

    @rule(online=st.booleans())
    def the_cluster_goes_or_comes(self, online):
        self.online = online
        self.sweep()

    def inventory(self):
        held = self.agent.held
        shown = ()
        if held is not None:
            about = self.tracked.session.id
            shown = (
                ResourceReport(session_id=about, generation=held.generation, state=held.state),
            )
        return Inventory(cluster_id=LAB, instance="a", sent_at=self.now, resources=shown)

    def say(self, model, order, **extra):
        self.reports.append(
            model(
                id=f"{order.id}.{order.attempt}",
                at=self.now,
                cluster_id=LAB,
                instance="a",
                session_id=self.tracked.session.id,
                generation=order.generation,
                **extra,
            )
        )

    def teardown(self):
        if not hasattr(self, "tracked"):
            return
        self.online = True
        self.inventories.clear()
        for _ in range(_ROUNDS):
            if self.stream is not None:
                self.the_agent_works(crash=False)
            while self.reports:
                self.a_report_arrives()
            self.tick(GRACE.total_seconds() + 1)
            self.compare(self.inventory())
            if self.stream is None and self.agrees():
                break
            self.tick(_LONGER_THAN_ANY_LIMIT.total_seconds())
            self.sweep()
        assert self.agrees(), (self.tracked.session, self.tracked.order, self.agent)

    def agrees(self):
        """The state shown is true, is final for now, and is what was asked or has failed."""
        session, held = self.tracked.session, self.agent.held
        match session.state:
            case SessionState.RUNNING:
                wanted = session.desired is DesiredState.RUNNING
                return wanted and held is not None and held.state is ResourceState.RUNNING
            case SessionState.HIBERNATED:
                wanted = session.desired is DesiredState.HIBERNATED
                return wanted and (held is None or held.state is ResourceState.HIBERNATED)
            case SessionState.TERMINATED | SessionState.FAILED:
                return held is None
            case _:
                return False


Convergence.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, derandomize=True
)
TestConvergence = Convergence.TestCase
