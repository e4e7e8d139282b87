"""Times on a command line."""

from datetime import UTC, datetime, timedelta

import pytest

from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.moments import parse, written

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T11:00:00Z", NOW - timedelta(hours=1)),
        ("2026-01-31T13:00:00+02:00", NOW - timedelta(hours=1)),
        ("15m", NOW - timedelta(minutes=15)),
        ("1.5h", NOW - timedelta(minutes=90)),
        ("-2d", NOW - timedelta(days=2)),
        ("30 s", NOW - timedelta(seconds=30)),
        ("now", NOW),
    ],
)
def test_times_are_read_as_people_write_them(text: str, moment: datetime):
    assert parse(text, NOW) == moment


def test_without_a_zone_it_is_this_machines():
    local = datetime(2026, 1, 31, 14, 32).astimezone()
    assert parse("2026-01-31 14:32", NOW) == local
    assert parse("14:32", NOW).astimezone().time() == local.time()


def test_what_is_no_time_is_told_with_what_is():
    with pytest.raises(CliError, match="15m for 15 minutes ago") as refused:
        parse("yesterday", NOW)
    assert refused.value.code is ExitCode.USAGE


def test_the_api_gets_utc():
    assert written(NOW) == "2026-01-31T12:00:00Z"
