"""A session's causal chain."""

from typing import Any

import pytest

from streamspace_cli.waterfall import as_data, chains, drawn


def entry(id_: str, second: float, command: str, **more: Any) -> dict[str, Any]:
    return {
        "eventId": id_,
        "type": "session.state-changed.v1",
        "at": f"2026-01-01T00:00:0{second}Z",
        "actor": {"id": "agent:lab/one", "name": None},
        "commandId": command,
        "command": {
            "id": command, "action": "start_session", "generation": 1, "state": "completed",
            "actor": {"id": "usr-1", "name": "ada"},
        },
        **more,
    }  # fmt: skip


HISTORY = [
    entry("a", 0.0, "cmd-1", type="session.created.v1", actor={"id": "usr-1", "name": "ada"}),
    entry("b", 1.0, "cmd-1", cause="a", fromState="pending", toState="starting"),
    entry("c", 4.0, "cmd-1", cause="b", fromState="starting", toState="running"),
    entry("d", 9.0, "cmd-2", fromState="running", toState="failed", message="It died.\x1b[2J"),
]


def test_each_command_is_a_chain_and_each_step_lasts_until_the_next():
    first, second = chains(HISTORY)
    assert (first.command_id, second.command_id) == ("cmd-1", "cmd-2")
    assert [step.lasted for step in first.steps] == [1.0, 3.0, 0.0]
    assert [step.depth for step in first.steps] == [0, 1, 2]
    assert [step.actor for step in first.steps] == ["ada", "agent:lab/one", "agent:lab/one"]
    assert first.lasted == 4.0


def test_bars_show_when_and_how_long():
    title, *lines = drawn(chains(HISTORY)[0])
    assert title == "start by ada: cmd-1, generation 1, completed, 4.000 s"
    bars = [line.split("|")[1] for line in lines]
    assert [len(bar) for bar in bars] == [30, 30, 30]
    assert bars[0].rstrip() == "█" * 8
    assert bars[1].count("█") == 23
    assert lines[1].endswith("pending -> starting")


@pytest.mark.parametrize("columns", [72, 80, 100])
def test_no_line_is_wider_than_the_terminal(columns: int):
    long = entry("e", 5.0, "cmd-1", cause="c", fromState="running", toState="failed",
                 message="The image registry.example.org/desktop:1 does not exist.")  # fmt: skip
    [chain] = chains([*HISTORY[:3], long])
    _, *lines = drawn(chain, columns=columns)
    assert max(map(len, lines)) == columns
    assert lines[-1].endswith("…")
    assert len({line.rindex("|") for line in lines}) == 1
    assert all("█" in line or "▏" in line for line in lines)


def test_bars_are_as_wide_as_the_words_allow():
    [chain] = chains(HISTORY[:3])
    whole = list(drawn(chain))
    widest = max(map(len, whole))
    assert list(drawn(chain, columns=widest)) == whole
    narrower = list(drawn(chain, columns=widest - 5))
    assert max(map(len, narrower)) == widest - 5
    assert not any("…" in line for line in narrower)


def test_a_chain_of_one_moment_can_be_drawn_and_cannot_steer_the_terminal():
    _, line = drawn(chains(HISTORY)[1])
    assert "\x1b" not in line
    assert "It died." in line


def test_programs_get_ids_and_causes():
    told = as_data(chains(HISTORY)[0])
    assert [(step["eventId"], step["cause"]) for step in told["steps"]] == [
        ("a", None), ("b", "a"), ("c", "b"),
    ]  # fmt: skip
    assert told["seconds"] == 4.0


def test_nothing_gives_nothing():
    assert chains([]) == []
