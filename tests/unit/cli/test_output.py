"""What is printed, and where."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from streamspace_cli.output import Column, Format, Printer, age, plain, size, span

COLUMNS = (Column("Name", "name"), Column("State", "state"), Column("CPU", "limits.cpu"))
ITEMS: list[dict[str, Any]] = [
    {"name": "one", "state": "running", "limits": {"cpu": "1"}, "more": 1},
    {"name": "a longer one", "state": "failed", "limits": None},
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(shape: Format, out: io.StringIO | None = None, **environment: str) -> tuple[str, str]:
    out, err = out or io.StringIO(), io.StringIO()
    Printer(shape, out=out, err=err, environment=environment).many(ITEMS, COLUMNS)
    return out.getvalue(), err.getvalue()


def test_a_table_has_aligned_columns_and_a_dash_for_nothing():
    assert printed(Format.TABLE)[0].splitlines() == [
        "NAME          STATE    CPU",
        "one           running  1",
        "a longer one  failed   -",
    ]


def test_json_and_yaml_hold_everything_that_the_server_told():
    assert json.loads(printed(Format.JSON)[0]) == ITEMS
    assert yaml.safe_load(printed(Format.YAML)[0]) == ITEMS


def test_an_empty_list_is_words_on_stderr_for_people_and_an_empty_array_for_programs():
    out, err = io.StringIO(), io.StringIO()
    Printer(Format.TABLE, out=out, err=err).many([], COLUMNS)
    assert (out.getvalue(), err.getvalue()) == ("", "There is nothing to show.\n")
    Printer(Format.JSON, out=out, err=err).many([], COLUMNS)
    assert json.loads(out.getvalue()) == []


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_and_never_where_no_color_is_set(environment, coloured):
    assert ("\x1b[" in printed(Format.TABLE, Terminal(), **environment)[0]) is coloured
    assert "\x1b[" not in printed(Format.TABLE, **environment)[0]


def test_text_of_others_cannot_steer_the_terminal():
    assert plain("a\x1b]0;gotcha\x07b\u202e") == "a\\x1b]0;gotcha\\x07b\\x202e"
    out = io.StringIO()
    Printer(Format.JSON, out=out).one({"name": "\x9b31m\x1b"}, ())
    assert "\x9b" not in out.getvalue()
    assert json.loads(out.getvalue()) == {"name": "\x9b31m\x1b"}


def test_records_are_one_line_of_json_each_and_yaml_documents():
    out = io.StringIO()
    printer = Printer(Format.JSON, out=out)
    printer.record({"a": 1}, "one")
    printer.record({"a": 2}, "two")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [{"a": 1}, {"a": 2}]
    out = io.StringIO()
    Printer(Format.YAML, out=out).record({"a": 1}, "one")
    assert list(yaml.safe_load_all(out.getvalue())) == [{"a": 1}]


def test_ages_and_sizes_are_told_in_the_unit_that_fits():
    assert [span(s) for s in (0, 59, 60, 119, 7200, 86400, 3 * 86400)] == [
        "0 s", "59 s", "1 min", "2 min", "2 h", "24 h", "3 d",
    ]  # fmt: skip
    assert age("2026-01-01T00:00:00Z", datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)) == "5 s"
    assert [size(s) for s in (0, 1023, 1536, 5 * 1024**3)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
    ]
