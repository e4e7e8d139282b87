"""What words and containers say of a session together: pure.

A word says what was asked for, a container what is there. Between the two lies the work
that is in progress, or was cut short.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from streamspace_agent.domain import Observed
from streamspace_agent.runtimes.docker.naming import ContainerName, Stage
from streamspace_agent.runtimes.docker.views import Container
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState


@dataclass(frozen=True)
class Word:
    """What one command wanted of a session."""

    session: SessionId
    generation: int
    wanted: DesiredState
    home: str | None = None
    written: str = ""


@dataclass(frozen=True)
class Held:
    """A container and what its name says."""

    container: Container
    name: ContainerName

    @property
    def alive(self) -> bool:
        return self.container.alive


def last(words: Sequence[Word]) -> Word | None:
    """The highest of a session's words."""
    return max(words, key=lambda word: word.generation, default=None)


def observe(session: SessionId, words: Sequence[Word], held: Sequence[Held]) -> Observed | None:
    """The session as it is; None when it was never heard of. A death has no words yet."""
    generations = [word.generation for word in words] + [each.name.generation for each in held]
    if not generations:
        return None
    return Observed(session, max(generations), _state(words, held))


def settled(held: Sequence[Held]) -> Held | None:
    """The desktop that answered, an alive one rather than a dead one."""
    found = [each for each in held if each.name.stage is Stage.SETTLED]
    return max(found, key=lambda each: (each.alive, each.name.generation), default=None)


def is_death(words: Sequence[Word], generation: int) -> bool:
    """Whether a desktop of this generation that ended did so by itself.

    Who ends one on purpose writes a newer word first, and renames it.
    """
    newest = last(words)
    return newest is None or (
        newest.wanted is DesiredState.RUNNING and newest.generation <= generation
    )


def rests(words: Sequence[Word]) -> bool:
    """Whether it is, or would again be, hibernated when nothing of it runs.

    A start writes its word before its work, and drops older words only after; so a wake
    that failed leaves the word it woke from.
    """
    for word in sorted(words, key=lambda word: word.generation, reverse=True):
        if word.wanted is not DesiredState.RUNNING:
            return word.wanted is DesiredState.HIBERNATED
    return False


def _state(words: Sequence[Word], held: Sequence[Held]) -> ResourceState | None:
    desktop = settled(held)
    if desktop is not None and desktop.alive:
        return ResourceState.RUNNING
    unfinished = {Stage.STARTING, Stage.SUSPENDED}
    if any(
        each.name.stage in unfinished and (each.alive or each.name.stage is Stage.SUSPENDED)
        for each in held
    ):
        return ResourceState.STARTING
    if desktop is not None:
        return ResourceState.DEAD
    return ResourceState.HIBERNATED if rests(words) else None
