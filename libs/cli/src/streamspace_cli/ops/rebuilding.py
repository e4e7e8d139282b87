"""Running the session service's own rebuilding, where that service is installed.

The command line knows neither its database nor its tables: it starts the service's
program with the service's settings and hands on what it says.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamspace_cli.exits import CliError, ExitCode

PROGRAM = "streamspace_session.rebuild"
DATABASE = "STREAMSPACE_SESSION_DATABASE_URL"
_SAME, _DIFFERENT = 0, 1


def rebuild(options: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """What it found, as it tells it in JSON; its progress goes to our stderr.

    Raises:
        CliError: it is not installed, or could not tell; it has said why.
    """
    if importlib.util.find_spec(PROGRAM.partition(".")[0]) is None:
        raise CliError(
            "The session service is not installed beside this command.",
            ExitCode.USAGE,
            hint=f"Run `python -m {PROGRAM}` where it is, for instance with `kubectl -n "
            "streamspace exec deployment/session --`.",
        )
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, "--json", *options],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode not in {_SAME, _DIFFERENT}:
        raise CliError("It could not be told whether they are the same.", ExitCode.UNREACHABLE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def settings_of_service(data: Path) -> dict[str, str]:
    """The environment of the session service: ours where it is set, else the local one's.

    Raises:
        CliError: neither says where the database is.
    """
    if os.environ.get(DATABASE):
        return dict(os.environ)
    try:
        process = json.loads((data / "run.json").read_text())["processes"]["session"]
        written = Path(f"/proc/{process}/environ").read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CliError(
            f"No StreamSpace runs in {data}, and {DATABASE} is not set.",
            ExitCode.USAGE,
            hint="Start it with `make up`, name its folder with --data, or give the settings of "
            "the session service.",
        ) from error
    pairs = (word.partition("=") for word in os.fsdecode(written).split("\0") if word)
    return {name: value for name, _, value in pairs}
