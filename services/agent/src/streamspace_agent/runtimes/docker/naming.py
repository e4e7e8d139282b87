"""Names and labels of what the runtime keeps in an engine, and how to read them back.

streamspace-<session>.<generation>.starting    a start in progress
streamspace-<session>.<generation>             a desktop that answered, dead or alive
streamspace-<session>.<generation>.suspended   ended with its agent, to be resumed
streamspace-<session>.<generation>.ending-<x>  being removed, whatever its state
streamspace-<session>.<generation>             the volume: a word
streamspace-<session>.home                     a home that ends with its session
streamspace-home-<home>[.<template>.<mount>]   a user's home, and folders beside it
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from streamspace_common.contracts.ids import SessionId, slug

INSTALLATION = "stream.space/installation"
KIND = "stream.space/kind"
SESSION = "stream.space/session"
GENERATION = "stream.space/generation"
WANTED = "stream.space/wanted"
HOME = "stream.space/home"
OWNER = "stream.space/owner"
TEMPLATE = "stream.space/template"
PORTS = "stream.space/ports"
CONNECTION = "stream.space/connection"


class Kind(StrEnum):
    """What a thing in the engine is to us."""

    SESSION = "session"
    WORD = "word"
    HOME = "home"
    NETWORK = "network"


class Stage(StrEnum):
    """How far a session's container is."""

    STARTING = "starting"
    SETTLED = "settled"
    SUSPENDED = "suspended"
    ENDING = "ending"


@dataclass(frozen=True)
class ContainerName:
    session: SessionId
    generation: int
    stage: Stage


_CONTAINER = re.compile(
    r"(?P<session>[a-z0-9-]+)\.(?P<generation>[0-9]+)"
    r"(?:\.(?P<stage>starting|suspended|ending)(?:-[0-9a-f]+)?)?"
)


@dataclass(frozen=True)
class Names:
    """The names of one installation; others may use the same engine."""

    prefix: str

    @property
    def network(self) -> str:
        return f"{self.prefix}-sessions"

    def container(self, session: SessionId, generation: int, stage: Stage) -> str:
        name = f"{self.prefix}-{session}.{generation}"
        return name if stage is Stage.SETTLED else f"{name}.{stage}"

    def doomed(self, session: SessionId, generation: int, container_id: str) -> str:
        """The name of a container that is being removed; never the same for two."""
        return f"{self.container(session, generation, Stage.ENDING)}-{container_id[:12]}"

    def read(self, name: str) -> ContainerName | None:
        """What a container's name says; None where it is not one of ours."""
        if not name.startswith(f"{self.prefix}-"):
            return None
        found = _CONTAINER.fullmatch(name.removeprefix(f"{self.prefix}-"))
        if found is None:
            return None
        stage = Stage(found["stage"]) if found["stage"] else Stage.SETTLED
        return ContainerName(SessionId(found["session"]), int(found["generation"]), stage)

    def word(self, session: SessionId, generation: int) -> str:
        return f"{self.prefix}-{session}.{generation}"

    def home(self, home: str, *, folder: str | None = None) -> str:
        name = f"{self.prefix}-home-{slug(home, 120)}"
        return f"{name}.{folder}" if folder else name

    def temporary_home(self, session: SessionId, *, folder: str | None = None) -> str:
        name = f"{self.prefix}-{session}.home"
        return f"{name}.{folder}" if folder else name

    def labels(self, kind: Kind, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What everything of ours bears, and what is said of it besides."""
        return {INSTALLATION: self.prefix, KIND: kind.value, **(more or {})}
