"""The checker finds every kind of wrong in ledgers made by hand, and no wrong in right ones."""

import dataclasses

import pytest
from tests.chaos.checker import Kind, check
from tests.chaos.records import Answer, Command, Effect, Request, Run, Session

S = "ada-terminal-00000001"
USER, SYSTEM = "usr-1", "system:session"


def command(generation, action, state="completed", actor=USER):
    return Command(f"cmd-{generation}", generation, action, state, actor)


START = command(1, "start_session")
STOP = command(2, "stop_session")
HIBERNATE = command(2, "hibernate_session")
WAKE = command(3, "wake_session")


def accepted(action, number, session=S):
    key = "key-1" if action == "create" else None
    return Request(0.0, action, Answer.ACCEPTED, session, f"cmd-{number}", key, 202)


def unknown(action, session=S):
    return Request(0.0, action, Answer.UNKNOWN, session)


CREATE = accepted("create", 1)


def session(state="running", *commands, **more):
    desired = {"failed": "running"}.get(state, state)
    shown = {"desired": desired, "generation": len(commands), "cluster": "lab", **more}
    return Session(id=S, state=state, commands=commands, **shown)


def lines(*told):
    """`told` are (work, generation, effect, step), by one replica."""
    return tuple(
        Effect("agent-1", work, S, generation, effect, step)
        for work, generation, effect, step in told
    )


def effect(work, generation, what, step="done"):
    """An effect with nothing in between."""
    return ((work, generation, what, "begun"), (work, generation, what, step))


def run(requests, sessions, effects, alive=(), **more):
    return Run(
        tuple(requests), tuple(sessions), {"lab": effects}, {"lab": frozenset(alive)}, **more
    )


def kinds(checked):
    return {violation.kind for violation in check(checked)}


# What is right


def test_a_session_that_was_started_and_runs_is_right():
    started = lines(*effect(1, 1, "running"))
    assert check(run([CREATE], [session("running", START)], started, [S])) == []


def test_a_whole_life_is_right():
    done = lines(
        *effect(1, 1, "running"),
        *effect(2, 2, "hibernated"),
        *effect(3, 3, "running"),
        *effect(4, 4, "absent"),
    )
    stop = command(4, "stop_session")
    asked = [
        CREATE,
        accepted("hibernate_session", 2),
        accepted("wake_session", 3),
        accepted("stop_session", 4),
    ]
    assert check(run(asked, [session("terminated", START, HIBERNATE, WAKE, stop)], done)) == []


def test_a_start_that_a_stop_superseded_need_not_happen():
    superseded = dataclasses.replace(START, state="superseded")
    done = lines(*effect(1, 2, "absent"))
    asked = [CREATE, accepted("stop_session", 2)]
    assert check(run(asked, [session("terminated", superseded, STOP)], done)) == []


def test_an_effect_whose_agent_was_killed_before_it_could_tell_counts():
    begun = lines((1, 1, "running", "begun"))
    assert check(run([CREATE], [session("running", START)], begun, [S])) == []


def test_a_start_told_again_that_found_it_running_is_no_second_one():
    told = lines(*effect(1, 1, "running"), *effect(2, 1, "running", "found"))
    assert check(run([CREATE], [session("running", START)], told, [S])) == []


def test_a_request_without_an_answer_may_have_been_carried_out_once():
    done = lines(*effect(1, 1, "running"), *effect(2, 2, "absent"))
    asked = [CREATE, unknown("stop_session")]
    assert check(run(asked, [session("terminated", START, STOP)], done)) == []
    still = lines(*effect(1, 1, "running"))
    assert check(run(asked, [session("running", START)], still, [S])) == []


def test_a_creation_without_an_answer_may_have_made_a_session():
    asked = [Request(0.0, "create", Answer.UNKNOWN, key="key-1")]
    started = lines(*effect(1, 1, "running"))
    assert check(run(asked, [session("running", START)], started, [S])) == []
    assert check(run(asked, [], ())) == []


def test_a_session_that_died_may_be_brought_up_again():
    restart = command(2, "start_session", actor=SYSTEM)
    told = lines(*effect(1, 1, "running"), (2, 1, "dead", "found"), *effect(3, 2, "running"))
    assert check(run([CREATE], [session("running", START, restart)], told, [S])) == []


def test_two_replicas_that_work_side_by_side_are_not_accused_of_an_order():
    told = lines(
        (1, 1, "running", "begun"),
        (2, 2, "absent", "begun"),
        (2, 2, "absent", "done"),
        (1, 1, "running", "done"),
    )
    asked = [CREATE, accepted("stop_session", 2)]
    assert check(run(asked, [session("terminated", START, STOP)], told)) == []


# What is wrong


def test_finds_an_accepted_session_that_nobody_knows():
    assert kinds(run([CREATE], [], ())) == {Kind.LOST}


def test_finds_an_accepted_command_that_nobody_knows():
    asked = [CREATE, accepted("stop_session", 2)]
    started = lines(*effect(1, 1, "running"))
    assert kinds(run(asked, [session("running", START)], started, [S])) == {Kind.LOST}


def test_finds_a_command_that_counts_as_completed_and_was_never_begun():
    started = lines(*effect(1, 1, "running"))
    asked = [CREATE, accepted("hibernate_session", 2)]
    assert Kind.LOST in kinds(run(asked, [session("hibernated", START, HIBERNATE)], started, [S]))


@pytest.mark.parametrize("step", ["failed", "superseded", "cut-short"])
def test_finds_a_command_that_counts_as_completed_and_was_undone(step):
    undone = lines(*effect(1, 1, "running", step))
    assert Kind.LOST in kinds(run([CREATE], [session("running", START)], undone, [S]))


def test_finds_two_sessions_for_one_request():
    other = dataclasses.replace(session("running", START), id="ada-terminal-00000002")
    again = dataclasses.replace(CREATE, session=other.id)
    checked = run([CREATE, again], [session("running", START), other], (), [S, other.id])
    assert Kind.DOUBLED in kinds(checked)


def test_finds_a_session_nobody_asked_for():
    started = lines(*effect(1, 1, "running"))
    assert Kind.DOUBLED in kinds(run([], [session("running", START)], started, [S]))


def test_finds_a_command_nobody_asked_for():
    done = lines(*effect(1, 1, "running"), *effect(2, 2, "absent"))
    assert Kind.DOUBLED in kinds(run([CREATE], [session("terminated", START, STOP)], done))


def test_finds_a_request_without_an_answer_that_was_carried_out_twice():
    stop_again = command(3, "stop_session")
    done = lines(*effect(1, 1, "running"), *effect(2, 2, "absent"), *effect(3, 3, "absent"))
    asked = [CREATE, unknown("stop_session")]
    checked = run(asked, [session("terminated", START, STOP, stop_again)], done)
    assert Kind.DOUBLED in kinds(checked)


def test_finds_a_session_brought_up_twice():
    twice = lines(*effect(1, 1, "running"), *effect(2, 1, "running"))
    assert kinds(run([CREATE], [session("running", START)], twice, [S])) == {Kind.DOUBLED}


def test_finds_two_replicas_that_bring_it_up_side_by_side():
    twice = lines(
        (1, 1, "running", "begun"),
        (2, 1, "running", "begun"),
        (1, 1, "running", "done"),
        (2, 1, "running", "done"),
    )
    assert kinds(run([CREATE], [session("running", START)], twice, [S])) == {Kind.DOUBLED}


def test_finds_a_superseded_start_that_came_after_the_stop():
    late = lines(*effect(1, 2, "absent"), *effect(2, 1, "running"))
    asked = [CREATE, accepted("stop_session", 2)]
    checked = run(asked, [session("terminated", START, STOP)], late, [S])
    assert kinds(checked) == {Kind.REORDERED, Kind.ORPHAN}


def test_finds_an_old_hibernation_after_the_wake():
    late = lines(
        *effect(1, 1, "running"), *effect(2, 3, "running", "found"), *effect(3, 2, "hibernated")
    )
    asked = [CREATE, accepted("hibernate_session", 2), accepted("wake_session", 3)]
    checked = run(asked, [session("running", START, HIBERNATE, WAKE)], late)
    assert {Kind.REORDERED, Kind.ORPHAN} <= kinds(checked)


def test_finds_a_session_that_never_settled():
    stuck = session("starting", START, desired="running", settled=None)
    assert Kind.STUCK in kinds(run([CREATE], [stuck], ()))


def test_finds_a_session_that_settled_too_late():
    late = session("running", START, settled=30.1)
    started = lines(*effect(1, 1, "running"))
    assert kinds(run([CREATE], [late], started, [S])) == {Kind.STUCK}


def test_finds_a_session_that_failed():
    failed = session("failed", START, reason="lost", message="gone")
    assert Kind.WRONG in kinds(run([CREATE], [failed], ()))


def test_finds_a_session_that_ended_otherwise_than_asked():
    done = lines(*effect(1, 1, "running"), *effect(2, 2, "absent"))
    given_up = dataclasses.replace(STOP, actor=SYSTEM)
    checked = run([CREATE], [session("terminated", START, given_up)], done)
    assert kinds(checked) == {Kind.WRONG}


def test_finds_what_runs_of_an_ended_session():
    done = lines(*effect(1, 1, "running"), *effect(2, 2, "absent"))
    asked = [CREATE, accepted("stop_session", 2)]
    checked = run(asked, [session("terminated", START, STOP)], done, [S])
    assert kinds(checked) == {Kind.ORPHAN}


def test_finds_what_runs_and_belongs_to_nobody():
    assert kinds(run([], [], (), ["who-knows"])) == {Kind.ORPHAN}


def test_finds_a_running_session_of_which_nothing_runs():
    started = lines(*effect(1, 1, "running"))
    assert kinds(run([CREATE], [session("running", START)], started)) == {Kind.ORPHAN}


def test_finds_an_effect_of_an_unknown_session():
    assert kinds(run([], [], lines(*effect(1, 1, "absent")))) == {Kind.STRANGER}


def test_finds_an_effect_of_a_generation_nobody_gave():
    told = lines(*effect(1, 1, "running"), *effect(2, 7, "running", "found"))
    assert kinds(run([CREATE], [session("running", START)], told, [S])) == {Kind.STRANGER}
