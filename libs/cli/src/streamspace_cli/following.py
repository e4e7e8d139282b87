"""Waiting for a session: what its events say of how far it is.

`judge` is pure: given the session as last seen and what is waited for, is it there, may
it still come, or is it over? `wait_for` feeds it from the event stream, which it resumes
where it broke off, and tells each phase on stderr as it is reached.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from typing import Any

from streamspace_cli.api import Api, Json
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import plain

FINAL = frozenset({"terminated", "failed"})
"""States that no session leaves; a copy, since reading the contracts takes a moment."""
_PAUSE = 1.0


class Verdict(Enum):
    THERE = auto()
    COMING = auto()
    OVER = auto()


def judge(session: Mapping[str, Any], wanted: str) -> Verdict:
    """Whether a session is in the state waited for.

    One that somebody has meanwhile asked to be something else will not get there.
    """
    state = session.get("state")
    if state == wanted:
        return Verdict.THERE
    if state in FINAL or session.get("desired") not in {wanted, None}:
        return Verdict.OVER
    return Verdict.COMING


def wait_for(
    api: Api,
    session: Json,
    wanted: str,
    *,
    timeout: float,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Json:
    """Follow a session until it is `wanted`; returns it as it is then.

    Raises:
        CliError: it ended otherwise, or was not there in `timeout` seconds.
    """
    deadline = clock() + timeout
    seen: set[tuple[object, object]] = set()
    state = session["state"]
    tell(f"{session['id']}: {_described(session)}")
    while True:
        match judge(session, wanted):
            case Verdict.THERE:
                return session
            case Verdict.OVER:
                raise _over(session, wanted)
            case Verdict.COMING:
                pass
        for name, data in updates(api, str(session["id"]), deadline, clock=clock, pause=pause):
            session = _newest(session, name, data)
            if wanted == "running":
                _tell_phases(name, data, session, seen, tell)
            if session["state"] != state:
                state = session["state"]
                tell(f"  {_described(session)}")
            if judge(session, wanted) is not Verdict.COMING:
                break
        if clock() >= deadline and judge(session, wanted) is Verdict.COMING:
            raise CliError(
                f"{session['id']} is still {session['state']} after {timeout:.0f} s.",
                ExitCode.TIMED_OUT,
                hint=f"It goes on; `streamspace sessions events {session['id']}` shows how far "
                "it is.",
            )


def updates(
    api: Api,
    session_id: str,
    deadline: float = math.inf,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[str, Json]]:
    """A session's events until the deadline, over as many connections as it takes.

    Raises:
        CliError: the server refuses, or was not there to begin with.
    """
    last: str | None = None
    met = False
    while (left := deadline - clock()) > 0:
        try:
            with api.events(f"/sessions/{session_id}/events", last, timeout=left) as events:
                met = True
                for id_, name, data in events:
                    last = id_ or last
                    if name:
                        yield name, data
                    if clock() >= deadline:
                        return
        except CliError as error:
            if not met or error.code is not ExitCode.UNREACHABLE:
                raise
        pause(min(_PAUSE, max(deadline - clock(), 0)))


def _newest(session: Json, name: str, data: Json) -> Json:
    """The session after an event; one that is older than what is known changes nothing."""
    shown: Any = data if name == "snapshot" else data.get("session")
    if isinstance(shown, dict) and shown.get("version", 0) >= session.get("version", 0):
        return shown
    return session


def _tell_phases(
    name: str,
    data: Json,
    session: Json,
    seen: set[tuple[object, object]],
    tell: Callable[[str], None],
) -> None:
    """Each phase once, whether it came alone or with the session that has reached it; and
    whatever is said of one that goes on.
    """
    if name == "phase":
        phases, generation = [data.get("timing") or {}], data.get("generation")
    else:
        phases, generation = list(session.get("phases") or ()), session.get("generation")
    passed = [n for n, one in enumerate(phases) if (generation, (one.get("phase"), None)) in seen]
    # One that was missed before one that was told is no news any more.
    for timing in phases[max(passed, default=0) :]:
        ongoing = bool(timing.get("ongoing"))
        key = generation, (timing.get("phase"), timing.get("message") if ongoing else None)
        if timing.get("phase") and key not in seen:
            seen.add(key)
            words = f": {plain(timing['message'])}" if timing.get("message") else ""
            moment = "" if ongoing else f" after {timing.get('elapsedMs', 0) / 1000:.1f} s"
            tell(f"  {timing['phase']}{moment}{words}")


def _described(session: Json) -> str:
    words = plain(session["message"]) if session.get("message") else ""
    return f"{session['state']}: {words}" if words else str(session["state"])


def _over(session: Json, wanted: str) -> CliError:
    words = str(session.get("message") or "").strip()
    state = session["state"]
    if state in FINAL:
        told = f"{session['id']} is {state} and will not be {wanted}."
    else:
        told = f"{session['id']} was asked to be {session.get('desired')}, not {wanted}."
    return CliError(
        f"{told} {words}".strip(),
        hint=f"`streamspace sessions history {session['id']}` tells what happened.",
    )
