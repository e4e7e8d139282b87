"""Several replicas of an agent, any of them killed or paused at any step: reconcile keeps its word.

The model is one session, the stream with its newest command, the resource with its fence, and
replicas that take the steps of `handlers` one at a time: look, decide, write the generation,
act, tell, acknowledge. Hypothesis delivers twice, lets replicas work side by side, kills them
between any two steps, and lets desktops die. What was told is true, no older command has an
effect after a newer one, no desktop is brought up beside another one, and when it is quiet the
newest command's state is the resource's.

That alone would forgive a decision whose mistake a later step makes good: the runtime's fence
stops what is outdated, a repeated start does no harm to what runs already. So every decision
is also held against `judge`, which says by itself what an answer must and must not hold.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamspace_agent.domain import Death, Observed
from streamspace_agent.reconcile import Action, Desired, reconcile
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState

S = SessionId("ada-terminal-00000001")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
REPLICAS = range(3)
RUNNING, HIBERNATED, DEAD = ResourceState.RUNNING, ResourceState.HIBERNATED, ResourceState.DEAD
STARTING = ResourceState.STARTING
UP = {STARTING, RUNNING}
RESULT = {
    Action.TELL_STARTED: RUNNING,
    Action.TELL_HIBERNATED: HIBERNATED,
    Action.TELL_STOPPED: None,
}
ENDS = {
    DesiredState.RUNNING: RUNNING,
    DesiredState.HIBERNATED: HIBERNATED,
    DesiredState.TERMINATED: None,
}
EFFECTS = {
    Action.START: RUNNING,
    Action.HIBERNATE: HIBERNATED,
    Action.REMOVE: None,
}


def judge(desired, observed, now, actions):
    """What any answer must be like; written without a look at how it is found."""
    *before, result = actions
    effects = [action for action in before if action in EFFECTS]
    assert result not in EFFECTS, "an answer ends with what is told"
    assert before in ([], [Action.TELL_RECEIVED, *effects])
    assert len(effects) <= 1
    outdated = observed is not None and observed.generation > desired.generation
    wants_to_end = desired.state is DesiredState.TERMINATED
    assert (result is Action.TELL_SUPERSEDED) == outdated, "the last word wins, and only it"
    late = now > desired.deadline and not wants_to_end and not outdated
    assert (result is Action.TELL_EXPIRED) == late, "late is late, but for an end"
    if outdated or late:
        assert not before, "what comes too late has no effect and was never taken up"
        return
    assert before, "who asked hears that it is in hand"
    mine = observed is not None and observed.generation == desired.generation
    died = mine and desired.state is DesiredState.RUNNING and observed.state is DEAD
    assert (result is Action.TELL_DEATH) == died, "a death is told to whom it concerns"
    if died:
        assert not effects, "a desktop that died is not started behind its user's back"
        return
    end = ENDS[desired.state]
    assert RESULT[result] == end, "what is told is what was asked for"
    assert all(EFFECTS[effect] == end for effect in effects), "and so is what is done"
    if not wants_to_end:
        # An end is repeated: what is absent may be one whose removal was cut short.
        assert bool(effects) != (mine and observed.state == end), "done once, and not twice"
    else:
        assert effects
    after = Observed(S, desired.generation, end)
    again = reconcile(desired, after, now)
    assert wants_to_end or not EFFECTS.keys() & set(again), "what is so is left alone"
    assert again[-1] is result


@dataclass
class Resource:
    """What stands for the session; `by` is the generation of the newest effect."""

    fence: int = 0
    state: ResourceState | None = None
    by: int = 0
    live: int = 0

    def observed(self) -> Observed | None:
        if not self.fence:
            return None
        death = Death("1", "gone") if self.state is DEAD else None
        return Observed(S, self.fence, self.state, death)


@dataclass
class Job:
    """A replica's work on one delivery, and what it has yet to do."""

    desired: Desired
    left: list[Action] | None = None
    fenced: bool = False


@dataclass(frozen=True)
class Told:
    generation: int
    result: Action


class Replicas(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.resource = Resource()
        self.jobs: dict[int, Job] = {}
        self.newest = 0
        self.stream: Desired | None = None
        self.told: list[Told] = []
        self.effects: list[int] = []
        self.now = NOW

    @rule(state=st.sampled_from(DesiredState), minutes=st.integers(-1, 2))
    def a_newer_command_is_sent(self, state, minutes):
        self.newest += 1
        self.stream = Desired(S, self.newest, state, self.now + minutes * MINUTE)

    @rule()
    def a_minute_passes(self):
        self.now += MINUTE

    @rule(replica=st.sampled_from(REPLICAS))
    def a_replica_gets_it(self, replica):
        """Also again, and also while another one works on it: nobody has acknowledged it yet."""
        if self.stream is not None and replica not in self.jobs:
            self.jobs[replica] = Job(self.stream)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), steps=st.integers(1, 6))
    def a_replica_goes_on(self, data, steps):
        replica = data.draw(st.sampled_from(sorted(self.jobs)))
        for _ in range(steps):
            if replica in self.jobs:
                self.step(replica)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def a_replica_is_killed(self, data):
        del self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))]

    @precondition(lambda self: self.resource.state is RUNNING)
    @rule()
    def the_desktop_dies(self):
        self.resource.state, self.resource.live = DEAD, 0

    def step(self, replica):
        job = self.jobs[replica]
        if job.left is None:
            observed = self.resource.observed()
            actions = reconcile(job.desired, observed, self.now)
            judge(job.desired, observed, self.now, actions)
            job.left = list(actions)
        elif not job.left:
            if self.stream == job.desired:
                self.stream = None
            del self.jobs[replica]
        elif job.left[0] in {Action.START, Action.HIBERNATE, Action.REMOVE}:
            self.act(job)
        else:
            self.tell(job, job.left.pop(0))

    def act(self, job):
        """As every runtime promises: the generation first, then the work, under its fence."""
        generation = job.desired.generation
        if self.resource.fence > generation:
            job.left = [Action.TELL_SUPERSEDED]
        elif not job.fenced:
            self.resource.fence, job.fenced = generation, True
        elif job.left[0] is Action.START and self.resource.state not in UP:
            # Killed between this and the next step, it is found half done.
            self.resource.state = STARTING
            self.resource.live += 1
        else:
            self.carry_out(job.left.pop(0), generation)

    def carry_out(self, action, generation):
        resource = self.resource
        self.effects.append(generation)
        resource.by = generation
        match action:
            case Action.START:
                resource.state = RUNNING
            case Action.HIBERNATE:
                resource.state, resource.live = HIBERNATED, 0
            case Action.REMOVE:
                resource.state, resource.live = None, 0

    def tell(self, job, result):
        if result is Action.TELL_RECEIVED:
            return
        generation = job.desired.generation
        self.told.append(Told(generation, result))
        if result is Action.TELL_SUPERSEDED:
            assert self.resource.fence > generation
        if result is Action.TELL_EXPIRED:
            assert job.desired.state is not DesiredState.TERMINATED
            assert self.now > job.desired.deadline
        if result is Action.TELL_DEATH:
            assert job.desired.state is DesiredState.RUNNING
        if result in RESULT:
            # It was so, by this generation's own effect; a newer one may have come since.
            assert generation in self.effects
            assert RESULT[result] == ENDS[job.desired.state]

    @invariant()
    def no_desktop_beside_another(self):
        assert self.resource.live == (1 if self.resource.state in UP else 0)

    @invariant()
    def no_older_command_has_an_effect_after_a_newer_one(self):
        assert self.effects == sorted(self.effects)

    def teardown(self):
        if not hasattr(self, "jobs"):
            return
        for replica in sorted(self.jobs):
            while replica in self.jobs:
                self.step(replica)
        newest = self.stream
        while self.stream is not None:
            self.jobs[0] = Job(self.stream)
            while 0 in self.jobs:
                self.step(0)
        if newest is not None:
            self.agrees(newest)

    def agrees(self, newest):
        last = self.told[-1]
        assert last.generation == newest.generation
        if last.result in RESULT:
            assert self.resource.state == RESULT[last.result] == ENDS[newest.state]
            assert self.resource.by == newest.generation
        elif last.result is Action.TELL_DEATH:
            assert self.resource.state is DEAD
        else:
            assert last.result is Action.TELL_EXPIRED


@pytest.mark.parametrize("wanted", DesiredState)
@pytest.mark.parametrize("there", ["nothing", None, *ResourceState])
@pytest.mark.parametrize("older_by", [-1, 0, 1])
@pytest.mark.parametrize("minutes", [-1, 0, 1])
def test_every_decision_is_as_it_must_be(wanted, there, older_by, minutes):
    """All there are: the replicas above need luck to meet some of them."""
    desired = Desired(S, 5, wanted, NOW + minutes * MINUTE)
    death = Death("1", "gone") if there is DEAD else None
    observed = None if there == "nothing" else Observed(S, 5 - older_by, there, death)
    judge(desired, observed, NOW, reconcile(desired, observed, NOW))


Replicas.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, derandomize=True
)
TestReplicas = Replicas.TestCase
