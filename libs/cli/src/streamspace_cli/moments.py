"""Times as people write them on a command line."""

import re
from datetime import UTC, datetime, timedelta

from streamspace_cli.exits import CliError, ExitCode

_AGO = re.compile(r"^-?(\d+(?:\.\d+)?)\s*(s|m|min|h|d)$")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

HELP = "A time: 2026-01-31T14:32:00Z, 14:32 (today, here), or 15m for 15 minutes ago."


def parse(text: str, now: datetime | None = None) -> datetime:
    """A moment in UTC; without a zone, it is this machine's.

    Raises:
        CliError: it is none.
    """
    now = now or datetime.now(UTC)
    if ago := _AGO.fullmatch(text.strip()):
        return now - timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
    if text == "now":
        return now
    today = now.astimezone().date().isoformat()
    for candidate in (text, f"{today}T{text}"):
        try:
            return datetime.fromisoformat(candidate).astimezone(UTC)
        except ValueError:
            continue
    raise CliError(f"{text} is not a time. {HELP}", ExitCode.USAGE)


def written(moment: datetime) -> str:
    """As the API takes it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
