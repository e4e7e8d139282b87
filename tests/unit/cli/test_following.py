"""Waiting for a session."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.following import FINAL, Verdict, judge, wait_for
from streamspace_common.contracts.sessions import SessionState


def session(state: str, desired: str = "running", version: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": "s", "state": state, "desired": desired, "version": version} | more


class Script:
    """An API whose event streams are written down; each list is one connection."""

    def __init__(self, *connections: Any) -> None:
        self.connections = list(connections)
        self.resumed: list[str | None] = []

    @contextmanager
    def events(
        self, path: str, last_id: str | None = None, *, timeout: float = 0
    ) -> Iterator[Iterator[tuple[str, str, dict[str, Any]]]]:
        assert path == "/sessions/s/events"
        self.resumed.append(last_id)
        now = self.connections.pop(0)
        if isinstance(now, Exception):
            raise now
        yield iter(now)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


def wait(script: Script, begin: dict[str, Any], wanted: str = "running") -> tuple[Any, list[str]]:
    told: list[str] = []
    clock = Clock()
    found = wait_for(
        script, begin, wanted, timeout=10, tell=told.append, clock=clock, pause=clock.pause  # type: ignore[arg-type]
    )  # fmt: skip
    return found, told


def changed(id_: str, **given: Any) -> tuple[str, str, dict[str, Any]]:
    return id_, "state", {"session": session(**given)}


def phase(id_: str, name: str, elapsed: float) -> tuple[str, str, dict[str, Any]]:
    return id_, "phase", {"generation": 1, "timing": {"phase": name, "elapsedMs": elapsed}}


def test_final_states_are_those_of_the_contract():
    assert {state.value for state in SessionState if state.is_final} == FINAL


@pytest.mark.parametrize(
    ("seen", "wanted", "verdict"),
    [
        (session("running"), "running", Verdict.THERE),
        (session("starting"), "running", Verdict.COMING),
        (session("unknown"), "running", Verdict.COMING),
        (session("failed"), "running", Verdict.OVER),
        (session("starting", "terminated"), "running", Verdict.OVER),
        (session("terminating", "terminated"), "terminated", Verdict.COMING),
        (session("failed", "terminated"), "terminated", Verdict.OVER),
    ],
)
def test_one_can_tell_what_may_still_come(seen, wanted, verdict):
    assert judge(seen, wanted) is verdict


def test_phases_are_told_once_and_the_session_is_returned_as_it_is_then():
    script = Script(
        [
            ("4", "snapshot", session("starting", version=2)),
            phase("5", "created", 400),
            phase("6", "created", 400),
            changed("7", state="running", version=3, generation=1,
                    phases=[{"phase": "created", "elapsedMs": 400}, {"phase": "ready", "elapsedMs": 900}]),
        ]
    )  # fmt: skip
    found, told = wait(script, session("pending"))
    assert found["version"] == 3
    assert told == [
        "s: pending",
        "  starting",
        "  created after 0.4 s",
        "  ready after 0.9 s",
        "  running",
    ]


def test_what_is_said_of_a_phase_that_goes_on_is_told_as_it_changes():
    def going(id_: str, words: str) -> tuple[str, str, dict[str, Any]]:
        timing = {"phase": "pulling", "elapsedMs": 100, "message": words, "ongoing": True}
        return id_, "phase", {"generation": 1, "timing": timing}

    done = {"phase": "pulling", "elapsedMs": 9000, "message": "1.2 GB in 9 s."}
    script = Script(
        [
            going("5", "10 %"),
            going("6", "10 %"),
            going("7", "60 %"),
            ("8", "phase", {"generation": 1, "timing": done}),
            changed("9", state="running", generation=1, phases=[done]),
        ]
    )
    _, told = wait(script, session("starting"))
    assert told[1:-1] == [
        "  pulling: 10 %",
        "  pulling: 60 %",
        "  pulling after 9.0 s: 1.2 GB in 9 s.",
    ]


def test_a_phase_that_was_missed_is_not_told_after_the_later_ones():
    phases = [{"phase": name, "elapsedMs": 9} for name in ("scheduled", "created", "ready")]
    script = Script(
        [
            phase("5", "created", 9),
            changed("7", state="running", version=3, generation=1, phases=phases),
        ]
    )
    _, told = wait(script, session("pending"))
    assert [line.split()[0] for line in told] == ["s:", "created", "ready", "running"]


def test_a_broken_stream_is_resumed_where_it_ended():
    away = CliError("away", ExitCode.UNREACHABLE)
    script = Script([changed("7", state="starting")], away, [changed("8", state="running")])
    assert wait(script, session("pending"))[0]["state"] == "running"
    assert script.resumed == [None, "7", "7"]


def test_a_server_that_never_answered_is_an_error_at_once():
    with pytest.raises(CliError, match="away"):
        wait(Script(CliError("away", ExitCode.UNREACHABLE)), session("pending"))


def test_a_session_that_fails_ends_the_waiting_with_its_own_words():
    script = Script([changed("7", state="failed", version=2, message="No space is left.")])
    with pytest.raises(CliError, match=r"will not be running\. No space is left\.") as raised:
        wait(script, session("pending"))
    assert raised.value.code is ExitCode.FAILED


def test_an_older_event_changes_nothing():
    script = Script(
        [changed("6", state="pending", version=1), changed("7", state="running", version=3)]
    )
    assert wait(script, session("starting", version=2))[1] == ["s: starting", "  running"]


def test_what_does_not_come_in_time_is_told_with_its_own_exit_code():
    with pytest.raises(CliError, match="still starting after 10 s") as raised:
        wait(Script(*[[] for _ in range(20)]), session("starting"))
    assert raised.value.code is ExitCode.TIMED_OUT
