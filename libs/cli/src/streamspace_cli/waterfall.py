"""A session's history as a causal chain: who did what, because of what, and how long it took.

Entries belong to the command that was the newest when they were written. Within a
command each entry lasts until the next one; one that another entry caused stands
beneath it, indented.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from streamspace_cli.output import plain, read_moment

_WIDEST, _NARROWEST = 30, 8
"""Columns of a bar; one that is narrower tells nothing."""
_FIGURES = len("      0.000 s  ||      0.000 s    ")
"""What of a line is neither bar nor words."""
_LEAST_LABEL = 12
_FULL, _TICK, _MORE = "█", "▏", "…"


@dataclass(frozen=True)
class Step:
    """One entry; `offset` and `lasted` in seconds, from its command's first one."""

    label: str
    actor: str
    offset: float
    lasted: float
    depth: int
    at: datetime
    event_id: str
    cause: str | None
    trace_id: str | None


@dataclass(frozen=True)
class Chain:
    """A command and all that followed of it."""

    command_id: str | None
    title: str
    steps: tuple[Step, ...]

    @property
    def lasted(self) -> float:
        return max((step.offset + step.lasted for step in self.steps), default=0.0)


def chains(entries: Sequence[Mapping[str, Any]]) -> list[Chain]:
    """A history, oldest first, taken apart by command."""
    groups: list[list[Mapping[str, Any]]] = []
    for entry in entries:
        if groups and _command_id(groups[-1][-1]) == _command_id(entry):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return [_chain(group) for group in groups]


def _chain(group: Sequence[Mapping[str, Any]]) -> Chain:
    begin = read_moment(group[0]["at"])
    depths: dict[str, int] = {}
    steps: list[Step] = []
    for entry in group:
        offset = (read_moment(entry["at"]) - begin).total_seconds()
        cause = entry.get("cause")
        depth = depths[cause] + 1 if cause in depths else (1 if steps else 0)
        depths[entry["eventId"]] = depth
        if steps:
            steps[-1] = replace(steps[-1], lasted=max(offset - steps[-1].offset, 0.0))
        steps.append(
            Step(
                label=describe(entry),
                actor=actor_of(entry),
                offset=offset,
                lasted=0.0,
                depth=depth,
                at=read_moment(entry["at"]),
                event_id=str(entry["eventId"]),
                cause=cause,
                trace_id=entry.get("traceId"),
            )
        )
    return Chain(_command_id(group[-1]), _title(group), tuple(steps))


def describe(entry: Mapping[str, Any]) -> str:
    """What one entry says, in a few words."""
    command = entry.get("command") or {}
    words = entry.get("message") or entry.get("reason")
    told = f" ({words})" if words else ""
    match entry["type"]:
        case "session.created.v1":
            return f"created, {entry.get('toState') or 'pending'}"
        case "session.state-changed.v1":
            before, after = entry.get("fromState"), entry.get("toState")
            return f"{after}{told}" if before == after else f"{before} -> {after}{told}"
        case "session.command-changed.v1":
            attempt = command.get("attempt", 1)
            again = f", attempt {attempt}" if attempt > 1 else ""
            error = f": {command['error']}" if command.get("error") else ""
            return f"command {command.get('state', 'changed')}{again}{error}"
        case other:
            return str(other).removeprefix("session.").rpartition(".v")[0].replace("-", " ") + told


def actor_of(entry: Mapping[str, Any]) -> str:
    actor = entry.get("actor") or {}
    id_ = str(actor.get("id", ""))
    if id_.startswith("agent:"):
        return id_
    return str(actor.get("name") or id_.removeprefix("system:"))


def drawn(chain: Chain, *, columns: int | None = None) -> Iterator[str]:
    """A chain as lines of text, each step with a bar for when and how long.

    On a terminal with so many `columns` the bars get narrower first, then the words are cut.
    """
    yield _cut(f"{plain(chain.title)}, {chain.lasted:.3f} s", columns)
    labels = ["  " * step.depth + plain(step.label) for step in chain.steps]
    actors = [plain(step.actor) for step in chain.steps]
    wide = max(map(len, actors))
    width, room = _WIDEST, None
    if columns is not None:
        left = columns - _FIGURES - wide
        width = max(_NARROWEST, min(_WIDEST, left - max(map(len, labels))))
        room = max(_LEAST_LABEL, left - width)
    for step, label, actor in zip(chain.steps, labels, actors, strict=True):
        bar = _bar(step, chain.lasted, width)
        yield (
            f"  {step.offset:>9.3f} s  |{bar}|  {step.lasted:>9.3f} s  "
            f"{actor:<{wide}}  {_cut(label, room)}"
        ).rstrip()


def _cut(text: str, room: int | None) -> str:
    return text if room is None or len(text) <= room else text[: room - 1] + _MORE


def as_data(chain: Chain) -> dict[str, Any]:
    """A chain for JSON and YAML, with the API's spelling."""
    return {
        "commandId": chain.command_id,
        "title": chain.title,
        "seconds": round(chain.lasted, 6),
        "steps": [
            {
                "at": step.at.isoformat(),
                "offset": round(step.offset, 6),
                "seconds": round(step.lasted, 6),
                "actor": step.actor,
                "what": step.label,
                "depth": step.depth,
                "eventId": step.event_id,
                "cause": step.cause,
                "traceId": step.trace_id,
            }
            for step in chain.steps
        ],
    }


def _bar(step: Step, total: float, width: int) -> str:
    if total <= 0:
        return _TICK.ljust(width)
    begin = min(int(step.offset / total * width), width - 1)
    end = min(round((step.offset + step.lasted) / total * width), width)
    drawn_part = _FULL * (end - begin) or _TICK
    return (" " * begin + drawn_part).ljust(width)


def _command_id(entry: Mapping[str, Any]) -> str | None:
    command = entry.get("command") or {}
    return entry.get("commandId") or command.get("id")


def _title(group: Sequence[Mapping[str, Any]]) -> str:
    command = next((entry["command"] for entry in reversed(group) if entry.get("command")), None)
    if command is None:
        return actor_of(group[0])
    who = actor_of({"actor": command.get("actor")})
    what = str(command.get("action", "command")).removesuffix("_session")
    return (
        f"{what} by {who}: {command['id']}, generation {command.get('generation')}, "
        f"{command.get('state')}"
    )
