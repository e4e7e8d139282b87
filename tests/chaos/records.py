"""What a run under fire leaves behind, as plain data: requests, effects, and how all ended.

The checker computes with these and with nothing of the services' own code: a fault in
theirs must not hide itself. Names of states and actions are those of the public API and of
the agents' effects file.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Answer(StrEnum):
    """What a client knows of a request after its answer, or without one."""

    ACCEPTED = "accepted"
    """202: it must have its effect, once."""
    REFUSED = "refused"
    """4xx: it must have none."""
    UNKNOWN = "unknown"
    """No answer, or 5xx: it may have been carried out, at most once."""


@dataclass(frozen=True)
class Request:
    """One request for a change, as its client remembers it.

    `key` joins the repetitions of one creation, which count as one request. `session`
    and `command` are what the answer told; `time` is seconds since the epoch, when the answer
    came or was given up.
    """

    time: float
    action: str
    answer: Answer
    session: str | None = None
    command: str | None = None
    key: str | None = None
    status: int | None = None


@dataclass(frozen=True)
class Effect:
    """One line of a cluster's effects file; `time` as written there."""

    instance: str
    work: int
    session: str
    generation: int
    effect: str
    step: str
    time: str = ""

    @property
    def ended_well(self) -> bool:
        return self.step in {"done", "found"}


@dataclass(frozen=True)
class Command:
    """A command as `GET /sessions/{id}/commands` shows it."""

    id: str
    generation: int
    action: str
    state: str
    actor: str

    @property
    def by_user(self) -> bool:
        return self.actor.startswith("usr-")


@dataclass(frozen=True)
class Session:
    """A session as the API shows it in the end.

    `settled` is how long after the last fault was healed it was first seen as it ought to
    be, in seconds; None when it never was.
    """

    id: str
    state: str
    desired: str
    generation: int
    cluster: str | None
    commands: tuple[Command, ...] = ()
    settled: float | None = 0.0
    reason: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class Run:
    """Everything a checker needs of a run.

    `effects` are in the order of the file, by cluster. `alive` are the sessions of which
    something really runs, by cluster, as the platform itself shows it.
    """

    requests: tuple[Request, ...]
    sessions: tuple[Session, ...]
    effects: dict[str, tuple[Effect, ...]]
    alive: dict[str, frozenset[str]]
    patience: float = 30.0
    """Seconds after the last fault was healed that a session may take."""


@dataclass
class Journal:
    """The clients' requests, kept in memory and on disk."""

    path: Path
    requests: list[Request] = field(default_factory=list)

    def write(self, request: Request) -> None:
        self.requests.append(request)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(request)) + "\n")


def read_effects(path: Path) -> tuple[Effect, ...]:
    """A cluster's effects in the order they were told; none where nothing was done yet."""
    return tuple(_effect(line) for line in _lines(path))


def _effect(line: dict[str, Any]) -> Effect:
    return Effect(
        instance=line["instance"],
        work=line["work"],
        session=line["session"],
        generation=line["generation"],
        effect=line["effect"],
        step=line["step"],
        time=line["time"],
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open() as file:
        for line in file:
            yield json.loads(line)


def by_session(effects: Iterable[Effect]) -> dict[str, list[Effect]]:
    """The effects of each session, in order."""
    found: dict[str, list[Effect]] = {}
    for one in effects:
        found.setdefault(one.session, []).append(one)
    return found
