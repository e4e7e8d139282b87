"""What words and containers mean together, and what names say."""

import pytest

from streamspace_agent.runtimes.docker.naming import ContainerName, Names, Stage
from streamspace_agent.runtimes.docker.observation import Held, Word, is_death, observe, settled
from streamspace_agent.runtimes.docker.views import Container
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState

S = SessionId("ada-terminal-00000001")
NAMES = Names("lab")
RUN, REST, STOP = DesiredState.RUNNING, DesiredState.HIBERNATED, DesiredState.TERMINATED


def words(*said: tuple[int, DesiredState]) -> list[Word]:
    return [Word(S, generation, wanted) for generation, wanted in said]


def held(generation: int, stage: Stage = Stage.SETTLED, *, alive: bool = True) -> Held:
    name = NAMES.container(S, generation, stage)
    container = Container(f"id{generation}{stage}", name, {}, alive, 0.0)
    return Held(container, ContainerName(S, generation, stage))


@pytest.mark.parametrize(
    ("said", "there", "generation", "state"),
    [
        ([(1, RUN)], [], 1, None),
        ([(1, RUN)], [held(1, Stage.STARTING)], 1, ResourceState.STARTING),
        ([(1, RUN)], [held(1, Stage.STARTING, alive=False)], 1, None),
        ([(1, RUN)], [held(1)], 1, ResourceState.RUNNING),
        ([(1, RUN)], [held(1, alive=False)], 1, ResourceState.DEAD),
        ([(5, RUN)], [held(1)], 5, ResourceState.RUNNING),
        ([(2, REST)], [], 2, ResourceState.HIBERNATED),
        ([(2, REST)], [held(1)], 2, ResourceState.RUNNING),
        ([(1, RUN), (2, REST)], [held(1, Stage.ENDING)], 2, ResourceState.HIBERNATED),
        # A wake that failed leaves the session at rest.
        ([(2, REST), (3, RUN)], [], 3, ResourceState.HIBERNATED),
        ([(2, REST), (3, RUN)], [held(3, Stage.STARTING)], 3, ResourceState.STARTING),
        ([(2, REST), (3, STOP)], [], 3, None),
        ([(2, REST), (3, STOP), (4, RUN)], [], 4, None),
        ([(2, STOP)], [], 2, None),
        ([(1, RUN)], [held(1, Stage.SUSPENDED, alive=False)], 1, ResourceState.STARTING),
        # Only its container is left, its words were lost.
        ([], [held(7)], 7, ResourceState.RUNNING),
    ],
)
def test_a_session_is_what_its_words_and_containers_say(
    said: list[tuple[int, DesiredState]],
    there: list[Held],
    generation: int,
    state: ResourceState | None,
) -> None:
    observed = observe(S, words(*said), there)
    assert observed is not None
    assert (observed.generation, observed.state) == (generation, state)


def test_a_session_without_words_and_containers_was_never_heard_of() -> None:
    assert observe(S, [], []) is None


def test_a_desktop_that_lives_goes_before_one_that_is_dead() -> None:
    alive, dead = held(1), held(3, alive=False)
    assert settled([dead, alive]) is alive


@pytest.mark.parametrize(
    ("said", "generation", "death"),
    [
        ([(1, RUN)], 1, True),
        ([(1, RUN)], 3, True),
        ([(1, RUN), (2, REST)], 1, False),
        ([(1, RUN), (2, STOP)], 1, False),
        # A newer start is at it, and will tell.
        ([(1, RUN), (3, RUN)], 1, False),
        ([], 1, True),
    ],
)
def test_an_end_is_a_death_unless_something_else_was_asked_for(
    said: list[tuple[int, DesiredState]], generation: int, death: bool
) -> None:
    assert is_death(words(*said), generation) is death


@pytest.mark.parametrize("stage", list(Stage))
def test_names_are_read_back(stage: Stage) -> None:
    assert NAMES.read(NAMES.container(S, 12, stage)) == ContainerName(S, 12, stage)


def test_a_doomed_name_is_of_one_container_alone() -> None:
    one, other = NAMES.doomed(S, 3, "ab" * 32), NAMES.doomed(S, 3, "cd" * 32)
    assert one != other
    assert NAMES.read(one) == ContainerName(S, 3, Stage.ENDING)


@pytest.mark.parametrize(
    "name", ["", "lab", "lab-x", "other-ada-terminal-00000001.3", "lab-ada.3.thinking", "lab-ada.x"]
)
def test_other_names_are_not_ours(name: str) -> None:
    assert NAMES.read(name) is None
