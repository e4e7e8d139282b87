"""Messages: names, versions, secrets, and what a reader makes of the unknown."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from streamspace_common.contracts.base import Message
from streamspace_common.contracts.commands import COMMAND, COMMAND_TYPES, desired_by, message_id
from streamspace_common.contracts.events import (
    EVENT_TYPES,
    CommandReceived,
    Event,
    UnknownEventError,
    parse_event,
)
from streamspace_common.contracts.problems import STATUS_AND_TITLE, Code, Problem
from streamspace_common.contracts.requests import CLUSTER_METHODS, SERVICE_METHODS, LoginRequest
from streamspace_common.contracts.sessions import DesiredState
from streamspace_common.protogen.catalogue import payloads
from streamspace_common.protogen.samples import sample


def test_every_type_name_ends_in_a_version() -> None:
    for payload in payloads().values():
        if payload.is_message:
            assert payload.name.endswith(".v1")


def test_no_two_payloads_share_a_name() -> None:
    names = [event.TYPE for event in EVENT_TYPES.values()]
    names += [command.TYPE for command in COMMAND_TYPES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("event", EVENT_TYPES.values(), ids=lambda event: event.TYPE)
def test_an_event_is_read_by_its_type_name(event: type[Event]) -> None:
    made = sample(event)
    assert parse_event(event.TYPE, made.to_json()) == made


def test_an_event_of_an_unknown_type_is_told_apart_from_a_broken_one() -> None:
    with pytest.raises(UnknownEventError):
        parse_event("session.levitated.v1", b"{}")
    with pytest.raises(ValidationError):
        parse_event(CommandReceived.TYPE, b"{}")


@pytest.mark.parametrize("command", COMMAND_TYPES, ids=lambda command: command.TYPE)
def test_a_command_is_read_by_its_action(command: type[Message]) -> None:
    made = COMMAND.validate_json(sample(command).to_json())
    assert COMMAND.validate_json(made.to_json()) == made
    assert message_id(made) == "cmd-1a2b3c4d.2"
    assert desired_by(made) in DesiredState


def test_moments_are_written_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    made = sample(CommandReceived).model_copy(update={"at": datetime(2026, 1, 2, 3, tzinfo=UTC)})
    moved = CommandReceived.model_validate(
        {**made.model_dump(), "at": datetime(2026, 1, 2, 5, tzinfo=east)}
    )
    assert moved == made
    assert b'"at":"2026-01-02T03:00:00Z"' in moved.to_json()
    with pytest.raises(ValidationError):
        CommandReceived.model_validate({**made.model_dump(), "at": datetime(2026, 1, 2)})  # noqa: DTZ001


def test_a_secret_travels_and_is_never_shown() -> None:
    request = LoginRequest.model_validate({"username": "ada", "password": "hunter2"})
    assert b"hunter2" in request.to_json()
    assert "hunter2" not in repr(request)
    assert "hunter2" not in str(request.model_dump())


def test_every_code_has_a_status_and_every_problem_its_own() -> None:
    assert set(STATUS_AND_TITLE) == set(Code)
    for code in Code:
        problem = Problem.of(code, "detail")
        assert problem.type.endswith(code)
        assert problem.status == STATUS_AND_TITLE[code][0]


def test_every_method_has_a_subject_of_its_own() -> None:
    subjects = [m.subject for methods in SERVICE_METHODS.values() for m in methods]
    assert len(set(subjects)) == len(subjects)
    assert {m.service for methods in SERVICE_METHODS.values() for m in methods} == set(
        SERVICE_METHODS
    )
    assert [m.name for m in CLUSTER_METHODS] == ["open_tunnel"]
