"""What an engine shows of itself and of what it holds, in our words."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EngineInfo:
    """What the engine's machine has: cores, bytes."""

    cpus: float
    memory: int
    version: str


@dataclass(frozen=True)
class Container:
    """A container as a list shows it."""

    id: str
    name: str
    labels: Mapping[str, str]
    alive: bool
    created: float
    """Seconds since 1970, by the engine's clock."""
    address: str | None = None


@dataclass(frozen=True)
class Ending:
    """How a container that does not run ended."""

    exit_code: int
    out_of_memory: bool
    error: str


@dataclass(frozen=True)
class Volume:
    name: str
    labels: Mapping[str, str]
    created: str


@dataclass(frozen=True)
class Happening:
    """Something happened to a container; its name as it was then."""

    action: str
    id: str
    name: str


@dataclass(frozen=True)
class ImageFacts:
    """What an image says about itself."""

    user: str = ""
    environment: Mapping[str, str] | None = None

    @property
    def begins_as_root(self) -> bool:
        return self.user.partition(":")[0] in {"", "0", "root"}
