"""Compares what was asked for with what was done and with what the API says in the end.

Independent on purpose: plain data in, violations out; none of the services' code is used,
and no clock is trusted. The order of the lines of a cluster's effects file is all the order
there is: an effect lies between its line `begun` and the line that tells its end, so one
effect surely came before another only when it ended before the other was begun. What is
reported is therefore certain; what merely may have gone wrong is not.

What each kind means:

* `lost`: an accepted request that left no trace: no session, no command, or a newest
  command that counts as completed though no agent ever began it.
* `doubled`: more than was asked for: two sessions or two commands for one request, or a
  session brought up a second time while the first was surely still there.
* `reordered`: an older generation was carried out after a newer one had been.
* `wrong`: the session ended otherwise than its newest request asks, or failed.
* `stuck`: it took longer than the patience, counted from the last fault's end, or for ever.
* `orphan`: something runs that should not, or the API shows as running what is not there.
* `stranger`: an effect on a session, or of a generation, that nobody ever asked for.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.records import Answer, Command, Effect, Request, Run, Session, by_session


class Kind(StrEnum):
    LOST = "lost"
    DOUBLED = "doubled"
    REORDERED = "reordered"
    WRONG = "wrong"
    STUCK = "stuck"
    ORPHAN = "orphan"
    STRANGER = "stranger"


@dataclass(frozen=True)
class Violation:
    kind: Kind
    session: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.session}: {self.detail}"


_FINAL_STATE = {
    "start_session": "running",
    "wake_session": "running",
    "hibernate_session": "hibernated",
    "stop_session": "terminated",
}
_EFFECT = {
    "start_session": "running",
    "wake_session": "running",
    "hibernate_session": "hibernated",
    "stop_session": "absent",
}
_UNDONE = {"superseded", "failed", "cut-short"}


def check(run: Run) -> list[Violation]:
    """Everything that is wrong with a run, in no particular order."""
    sessions = {session.id: session for session in run.sessions}
    found = [*_requests(run, sessions)]
    effects = {cluster: by_session(lines) for cluster, lines in run.effects.items()}
    for session in run.sessions:
        lines = effects.get(session.cluster or "", {}).get(session.id, [])
        found += _ending(session, run.patience)
        found += _carried_out(session, lines)
        found += _presence(session, run)
    for cluster, known in effects.items():
        for session_id, lines in known.items():
            found += _order(session_id, lines)
            found += _doubled(session_id, lines)
            found += _strangers(session_id, sessions.get(session_id), cluster, lines)
    found += _orphans(run, sessions)
    return found


# What was asked for


def _requests(run: Run, sessions: dict[str, Session]) -> Iterator[Violation]:
    yield from _creations(run, sessions)
    accepted: dict[str, list[Request]] = {}
    unknown: Counter[tuple[str, str]] = Counter()
    for request in run.requests:
        if request.session is None:
            continue
        if request.answer is Answer.ACCEPTED:
            accepted.setdefault(request.session, []).append(request)
        elif request.answer is Answer.UNKNOWN:
            unknown[request.session, request.action] += 1
    for session_id, requests in accepted.items():
        session = sessions.get(session_id)
        if session is None:
            yield Violation(Kind.LOST, session_id, "accepted, and the API does not know it")
            continue
        yield from _commands(session, requests, unknown)


def _creations(run: Run, sessions: dict[str, Session]) -> Iterator[Violation]:
    made: dict[str, set[str]] = {}
    known = set()
    unanswered = {r.key for r in run.requests if r.action == "create" and r.key}
    for request in run.requests:
        if request.session is not None:
            known.add(request.session)
        if request.action == "create" and request.key and request.session is not None:
            made.setdefault(request.key, set()).add(request.session)
            unanswered.discard(request.key)
    for key, several in made.items():
        if len(several) > 1:
            yield Violation(Kind.DOUBLED, ", ".join(sorted(several)), f"all for one request {key}")
    unexpected = sorted(set(sessions) - known)
    for session_id in unexpected[len(unanswered) :]:
        yield Violation(Kind.DOUBLED, session_id, "no request that was made accounts for it")


def _commands(
    session: Session, accepted: Sequence[Request], unknown: Counter[tuple[str, str]]
) -> Iterator[Violation]:
    known = {command.id for command in session.commands}
    told = {request.command for request in accepted if request.command is not None}
    for request in accepted:
        if request.command is not None and request.command not in known:
            detail = f"command {request.command} was accepted, and the API does not know it"
            yield Violation(Kind.LOST, session.id, detail)
    for action, extra in _unexplained(session.commands, told).items():
        allowed = unknown[session.id, action]
        if extra > allowed:
            detail = f"{extra} commands {action} without an accepted request, {allowed} may be"
            yield Violation(Kind.DOUBLED, session.id, detail)


def _unexplained(commands: Iterable[Command], told: set[str]) -> Counter[str]:
    return Counter(c.action for c in commands if c.by_user and c.id not in told)


# How it ended


def _newest(session: Session) -> Command | None:
    return max(session.commands, key=lambda command: command.generation, default=None)


def _wanted(session: Session) -> str | None:
    """The state its newest request asks for."""
    asked = [command for command in session.commands if command.by_user]
    newest = max(asked, key=lambda command: command.generation, default=None)
    return _FINAL_STATE.get(newest.action) if newest is not None else None


def _ending(session: Session, patience: float) -> Iterator[Violation]:
    wanted = _wanted(session)
    if session.state == "failed":
        yield Violation(Kind.WRONG, session.id, f"failed: {session.reason}: {session.message}")
    elif session.settled is None:
        detail = f"is {session.state}, wanted {session.desired}, and stays so"
        yield Violation(Kind.STUCK, session.id, detail)
    elif session.settled > patience:
        detail = f"took {session.settled:.1f} s after the last fault's end"
        yield Violation(Kind.STUCK, session.id, detail)
    # Deleted before it had a cluster, it ended without a command of its own.
    unplaced = session.cluster is None and session.state == "terminated"
    if session.state != "failed" and session.state != wanted and not unplaced:
        detail = f"is {session.state}, its newest request asks for {wanted}"
        yield Violation(Kind.WRONG, session.id, detail)


def _carried_out(session: Session, lines: Sequence[Effect]) -> Iterator[Violation]:
    newest = _newest(session)
    if newest is None or newest.state != "completed" or session.cluster is None:
        return
    # An agent that was killed between an effect and the line that tells its end leaves
    # `begun` alone; the next one finds the effect and has nothing to add.
    works = _ends(lines)
    for line in lines:
        mine = (line.generation, line.effect) == (newest.generation, _EFFECT.get(newest.action))
        if mine and line.step == "begun" and works.get((line.instance, line.work)) not in _UNDONE:
            return
    detail = f"{newest.action} {newest.generation} counts as completed, and no agent did it"
    yield Violation(Kind.LOST, session.id, detail)


def _ends(lines: Iterable[Effect]) -> dict[tuple[str, int], str]:
    return {(one.instance, one.work): one.step for one in lines if one.step != "begun"}


def _presence(session: Session, run: Run) -> Iterator[Violation]:
    if session.state == "running" and session.id not in run.alive.get(
        session.cluster or "", frozenset()
    ):
        yield Violation(Kind.ORPHAN, session.id, "counts as running, and nothing of it runs")


def _orphans(run: Run, sessions: dict[str, Session]) -> Iterator[Violation]:
    for cluster, alive in run.alive.items():
        for session_id in sorted(alive):
            session = sessions.get(session_id)
            if session is None or session.state != "running" or session.cluster != cluster:
                state = session.state if session else "unknown to the API"
                yield Violation(Kind.ORPHAN, session_id, f"runs on {cluster}, and is {state}")


# What was done


@dataclass(frozen=True)
class _Work:
    """One effect from the line that began it to the line that ended it; places in the file.

    `end` of one that was never ended is beyond the file.
    """

    line: Effect
    begin: int
    end: int
    step: str | None


def _works(lines: Sequence[Effect]) -> list[_Work]:
    ends = {
        (one.instance, one.work): (place, one.step)
        for place, one in enumerate(lines)
        if one.step != "begun"
    }
    return [
        _Work(one, place, *ends.get((one.instance, one.work), (len(lines), None)))
        for place, one in enumerate(lines)
        if one.step == "begun"
    ]


def _order(session_id: str, lines: Sequence[Effect]) -> Iterator[Violation]:
    works = _works(lines)
    for late in works:
        if late.step not in {"done", "found"}:
            continue
        for newer in works:
            certain = newer.step in {"done", "found"} and newer.end < late.begin
            if certain and newer.line.generation > late.line.generation:
                detail = (
                    f"{late.line.effect} of generation {late.line.generation} was carried out "
                    f"after {newer.line.effect} of generation {newer.line.generation}"
                )
                yield Violation(Kind.REORDERED, session_id, detail)
                break


def _doubled(session_id: str, lines: Sequence[Effect]) -> Iterator[Violation]:
    """Brought up, and brought up again, with nothing in between that could have ended it."""
    works = _works(lines)
    deaths = [place for place, one in enumerate(lines) if one.effect == "dead"]
    ups = sorted(
        (w for w in works if w.line.effect == "running" and w.step == "done"), key=lambda w: w.end
    )
    downs = [w for w in works if w.line.effect in {"hibernated", "absent"}]
    for first, second in itertools.pairwise(ups):
        ended = any(down.begin < second.end and down.end > first.begin for down in downs)
        died = any(first.begin < place < second.end for place in deaths)
        if not ended and not died:
            detail = (
                f"brought up by {first.line.instance} (generation {first.line.generation}) and "
                f"again by {second.line.instance} (generation {second.line.generation})"
            )
            yield Violation(Kind.DOUBLED, session_id, detail)


def _strangers(
    session_id: str, session: Session | None, cluster: str, lines: Sequence[Effect]
) -> Iterator[Violation]:
    if session is None:
        yield Violation(Kind.STRANGER, session_id, f"effects on {cluster}, unknown to the API")
        return
    if session.cluster != cluster:
        yield Violation(Kind.STRANGER, session_id, f"belongs to {session.cluster}, not {cluster}")
        return
    asked = {(c.generation, _EFFECT.get(c.action)) for c in session.commands}
    seen = set()
    for line in lines:
        did = (line.generation, line.effect)
        if line.effect != "dead" and did not in asked and did not in seen:
            seen.add(did)
            detail = f"{line.effect} of generation {line.generation}: no such command"
            yield Violation(Kind.STRANGER, session_id, detail)
