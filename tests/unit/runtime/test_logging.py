"""Every line is one JSON object with its ids and without secrets, whoever wrote it."""

import json
import logging as standard
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from streamspace_common.runtime import logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = standard.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    output = capsys.readouterr()
    assert output.out == ""
    return [json.loads(line) for line in output.err.splitlines()]


def test_a_line_tells_service_level_and_time_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure("session", "INFO", "json")
    logging.get_logger("here").info("started", port=8080)
    [line] = lines(capsys)
    assert line["timestamp"].endswith("Z")
    assert (line["service"], line["level"], line["event"]) == ("session", "info", "started")
    assert (line["component"], line["port"]) == ("here", 8080)


def test_bound_ids_stand_on_every_line_inside_the_block(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.configure("session", "INFO", "json")
    log = logging.get_logger("here")
    with logging.bind(session_id="s1", user_id=None):
        log.info("inside")
        standard.getLogger("a.library").warning("inside too")
    log.info("outside")
    first, second, third = lines(capsys)
    assert first["session_id"] == second["session_id"] == "s1"
    assert "user_id" not in first
    assert "session_id" not in third


def test_libraries_write_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure("session", "INFO", "json")
    standard.getLogger("uvicorn.error").info("up on %d", 80)
    [line] = lines(capsys)
    assert (line["event"], line["component"], line["service"]) == (
        "up on 80",
        "uvicorn.error",
        "session",
    )


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "newPassword",
        "refresh_token",
        "ticket",
        "Authorization",
        "nats_credentials",
        "client_secret",
        "api_key",
        "set-cookie",
        "seed",
    ],
)
def test_a_secret_looking_key_is_redacted(capsys: pytest.CaptureFixture[str], key: str) -> None:
    logging.configure("session", "INFO", "json")
    logging.get_logger("here").info(
        "x", **{key: "hunter2", "nested": {"deeper": [{key: "hunter2"}]}}
    )
    assert "hunter2" not in capsys.readouterr().err


def test_a_password_inside_an_address_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure("session", "INFO", "json")
    logging.get_logger("here").info("cannot reach postgresql://me:hunter2@db:5432/x")
    [line] = lines(capsys)
    assert line["event"] == "cannot reach postgresql://me:[redacted]@db:5432/x"


def test_an_exception_is_part_of_the_line_and_shows_no_locals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.configure("session", "INFO", "json")
    password = "hunter2"
    try:
        raise ValueError("no good")
    except ValueError:
        logging.get_logger("here").exception("failed")
    [line] = lines(capsys)
    assert "ValueError: no good" in line["exception"]
    assert password not in line["exception"]


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure("session", "WARNING", "json")
    logging.get_logger("here").info("quiet")
    standard.getLogger("a.library").info("quiet")
    assert lines(capsys) == []


def test_access_lines_of_probes_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure("session", "INFO", "json")
    access = standard.getLogger("uvicorn.access")
    for path in ("/healthz", "/readyz?verbose", "/metrics", "/api/v1/sessions"):
        access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", path, "1.1", 200)
    assert [line["event"] for line in lines(capsys)] == [
        '127.0.0.1:1 - "GET /api/v1/sessions HTTP/1.1" 200'
    ]


def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure("session", "INFO", "console")
    logging.get_logger("here").info("started", password="hunter2")
    output = capsys.readouterr().err
    assert "started" in output
    assert "hunter2" not in output
    assert not output.startswith("{")
    assert sys.stderr is not None


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_traceback_shows_no_variables(capsys: pytest.CaptureFixture[str], format_: str) -> None:
    logging.configure("session", "INFO", format_)

    def fail() -> None:
        headers = {"Authorization": "Bearer hunter" + "2"}
        raise ValueError(len(headers))

    try:
        fail()
    except ValueError:
        logging.get_logger("here").exception("failed")
        standard.getLogger("a.library").exception("failed too")
    output = capsys.readouterr().err
    assert output.count("raise ValueError") == 2
    assert "hunter2" not in output
