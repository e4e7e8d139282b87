"""What is broken when, for how long: a pure function of a seed and of what there is to break.

The same seed gives the same plan, on any machine. When the plan is carried out, the
services answer as fast as they do, so two runs of one plan are alike but not equal; a fault
that one seed brings to light comes again soon with the same one.

Every kind has a reason of its own:

* `kill`: SIGKILL, and started again after a while. No last word, no flushed buffer.
* `pause`: SIGSTOP and SIGCONT. It keeps its connections and its locks, and goes on later
  with what it believed before.
* `restart`: SIGTERM, as an upgrade does, and started again.
* `cut`: every connection of one process with one server is reset; new ones are refused.
* `hold`: bytes are held back both ways and delivered when it is over: a network that
  loses packets for a while. New connections are taken and stay silent.
* `delay`: every chunk comes later by `amount` seconds.
* `silence`: every connection of one process with one server stays open and carries nothing
  any more, for ever; new ones work. A firewall or a NAT has forgotten them, a cable was
  pulled: nobody is told. It takes no time; `seconds` is how long the next fault waits.
* `fill`: the server's disk is full, for real (ENOSPC), until somebody makes room.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    KILL = "kill"
    PAUSE = "pause"
    RESTART = "restart"
    CUT = "cut"
    HOLD = "hold"
    DELAY = "delay"
    SILENCE = "silence"
    FILL = "fill"


@dataclass(frozen=True)
class Fault:
    """One thing that is broken; times in seconds from the beginning of the round."""

    at: float
    kind: Kind
    target: str
    seconds: float
    amount: float = 0.0

    @property
    def end(self) -> float:
        return self.at + self.seconds

    def __str__(self) -> str:
        extra = f" by {self.amount:g} s" if self.amount else ""
        return f"{self.at:7.2f} s  {self.kind} {self.target} for {self.seconds:g} s{extra}"


@dataclass(frozen=True)
class Targets:
    """What there is to break. `links` are named `<process>:<server>`, `disks` by server."""

    processes: tuple[str, ...]
    links: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Amounts:
    """How many faults of each kind a round has."""

    kill: int
    pause: int = 0
    restart: int = 0
    cut: int = 0
    hold: int = 0
    delay: int = 0
    silence: int = 0
    fill: int = 0

    @classmethod
    def around(cls, kills: int, *, disks: int) -> "Amounts":
        """The usual mixture for so many kills; each disk is filled once."""
        return cls(
            kill=kills,
            pause=max(1, kills // 6),
            restart=max(1, kills // 8),
            cut=max(1, kills // 5),
            hold=max(1, kills // 8),
            delay=max(1, kills // 8),
            silence=max(1, kills // 8),
            fill=disks,
        )


_SECONDS = {
    Kind.KILL: (0.1, 3.0),
    Kind.PAUSE: (0.5, 8.0),
    Kind.RESTART: (0.1, 1.0),
    Kind.CUT: (0.0, 3.0),
    Kind.HOLD: (0.5, 6.0),
    Kind.DELAY: (1.0, 6.0),
    Kind.SILENCE: (0.5, 2.0),
    Kind.FILL: (1.5, 4.0),
}
_DELAY = (0.02, 0.3)
_GAP = 0.5
"""Seconds a target is left alone between two of its faults."""


def faults(
    seed: int | str, targets: Targets, amounts: Amounts, duration: float
) -> tuple[Fault, ...]:
    """The faults of one round, in the order they begin.

    Every target of a kind has its turn before one has it again. No two faults of one target
    overlap, and all are over soon after `duration` seconds.
    """
    chance = random.Random(f"faults {seed}")
    drawn = [
        *_draw(chance, Kind.KILL, targets.processes, amounts.kill),
        *_draw(chance, Kind.PAUSE, targets.processes, amounts.pause),
        *_draw(chance, Kind.RESTART, targets.processes, amounts.restart),
        *_draw(chance, Kind.CUT, targets.links, amounts.cut),
        *_draw(chance, Kind.HOLD, targets.links, amounts.hold),
        *_draw(chance, Kind.DELAY, targets.links, amounts.delay),
        *_draw(chance, Kind.SILENCE, targets.links, amounts.silence),
        *_draw(chance, Kind.FILL, targets.disks, amounts.fill),
    ]
    placed = sorted((chance.uniform(0, duration), kind, target) for kind, target in drawn)
    free: dict[str, float] = {}
    found = []
    for at, kind, target in placed:
        begin = max(at, free.get(target, 0.0))
        shortest, longest = _SECONDS[kind]
        seconds = round(chance.uniform(shortest, longest), 2)
        amount = round(chance.uniform(*_DELAY), 3) if kind is Kind.DELAY else 0.0
        fault = Fault(round(begin, 2), kind, target, seconds, amount)
        free[target] = fault.end + _GAP
        found.append(fault)
    return tuple(sorted(found, key=lambda fault: (fault.at, fault.target)))


def _draw(
    chance: random.Random, kind: Kind, targets: Sequence[str], count: int
) -> list[tuple[Kind, str]]:
    drawn: list[tuple[Kind, str]] = []
    while targets and len(drawn) < count:
        turn = list(targets)
        chance.shuffle(turn)
        drawn += [(kind, target) for target in turn[: count - len(drawn)]]
    return drawn
