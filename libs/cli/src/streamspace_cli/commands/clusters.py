"""Clusters, and how a new one joins."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from streamspace_cli import complete
from streamspace_cli.contexts import write_private
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Column, at, since, size
from streamspace_cli.run import Run, command, group

app = group("Clusters: where sessions run.")

_COLUMNS = (
    Column("Id", "id"),
    Column("Presence", "presence"),
    Column("Runtime", "runtime"),
    Column("Agents", "agents"),
    Column("Running", "runningSessions"),
    Column("Room", "capacity.maxSessions"),
    Column("Waiting", "waitingCommands"),
    since("Seen", "lastSeenAt"),
)
_DETAILS = (
    Column("Id", "id"),
    Column("Name", "name"),
    Column("Presence", "presence"),
    Column("Trouble", "trouble"),
    Column("Runtime", "runtime"),
    Column("Version", "version"),
    Column("Agents", "agents"),
    Column("Running", "runningSessions"),
    Column("Reserved", "reservedSessions"),
    Column("Sessions at most", "capacity.maxSessions"),
    Column("CPU", "capacity.cpu"),
    Column("Memory", lambda item: _memory(item.get("capacity"))),
    Column("Labels", lambda item: [f"{k}={v}" for k, v in (item.get("labels") or {}).items()]),
    Column("Waiting commands", "waitingCommands"),
    Column("Oldest waits (s)", "oldestWaitingSeconds"),
    at("Seen", "lastSeenAt"),
    at("Enrolled", "createdAt"),
)

ClusterId = Annotated[str, typer.Argument(help="Its id.", autocompletion=complete.clusters)]


@command(app, "list")
def list_(run: Run) -> None:
    """List clusters with their agents' presence and load."""
    with run.api() as api:
        run.printer.many(api.get("/clusters")["items"], _COLUMNS)


@command(app)
def show(run: Run, cluster: ClusterId) -> None:
    """Show a cluster."""
    with run.api() as api:
        run.printer.one(api.get(f"/clusters/{cluster}"), _DETAILS)


@command(app)
def enrol(
    run: Run,
    cluster: Annotated[str, typer.Argument(help="Its id, a DNS label.")],
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Where its agent's secrets go; ./<cluster>.json."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="New credentials for a cluster that exists.")
    ] = False,
) -> None:
    """Enrol a cluster: write the one file that its agent starts with, readable by you alone."""
    path = file or Path(f"{cluster}.json")
    # It is told once: make sure that it can be kept before asking.
    _reserve(path)
    try:
        with run.api() as api:
            enrolment = api.post("/clusters", {"id": cluster, "name": name, "replace": replace})
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    write_private(path, json.dumps(enrolment, indent=2) + "\n")
    run.note(
        f"{cluster} is enrolled. Take {path} to its agent and start it with\n"
        f"  STREAMSPACE_AGENT_ENROLMENT_FILE={path} streamspace-agent"
    )
    run.printer.line(str(path))


def _reserve(path: Path) -> None:
    """Make an empty private file.

    Raises:
        CliError: there is one already, or it cannot be made.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        raise CliError(
            f"{path} exists already.", ExitCode.CONFLICT, hint="Choose another one with --file."
        ) from error
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}.") from error


def _memory(capacity: dict[str, float] | None) -> str | None:
    return size(capacity["memory"]) if capacity else None
