"""Clusters, and how a new one joins."""

import ipaddress
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from streamspace_cli import complete
from streamspace_cli.api import Api
from streamspace_cli.contexts import write_private
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Column, at, counted, since, size
from streamspace_cli.run import Run, command, group

app = group("Clusters: where sessions run.")


def _versions(cluster: Mapping[str, Any]) -> str:
    """Its agents' versions, the oldest first; `!` marks one older than the control plane's."""
    found = {
        f"{one['version']}{'!' if one.get('behind') else ''}"
        for one in cluster.get("instances") or ()
    }
    return ", ".join(sorted(found)) or str(cluster.get("version") or "")


def _presence(cluster: Mapping[str, Any]) -> str:
    """Its presence, and whether anybody is let in at all."""
    revoked = ", revoked" if cluster.get("revokedAt") else ""
    return f"{cluster['presence']}{revoked}"


def _waiting(cluster: Mapping[str, Any]) -> str:
    """Its commands that no agent has taken, and what they wait for where that is not an agent."""
    number = int(cluster.get("waitingCommands") or 0)
    return f"{number}, for a new enrolment" if number and cluster.get("revokedAt") else str(number)


def _agent(one: Mapping[str, Any]) -> str:
    notes = [str(one["version"])]
    notes += ["older than the control plane"] if one.get("behind") else []
    notes += ["draining"] if one.get("draining") else []
    return f"{one['instance']} ({', '.join(notes)})"


_COLUMNS = (
    Column("Id", "id"),
    Column("Presence", _presence),
    Column("Runtime", "runtime"),
    Column("Agents", "agents"),
    Column("Version", _versions),
    Column("Running", "runningSessions"),
    Column("Room", "capacity.maxSessions"),
    Column("Waiting", "waitingCommands"),
    since("Seen", "lastSeenAt"),
)
_DETAILS = (
    Column("Id", "id"),
    Column("Name", "name"),
    Column("Presence", "presence"),
    at("Access revoked", "revokedAt"),
    Column("Trouble", "trouble"),
    Column("Runtime", "runtime"),
    Column("Agents", lambda item: [_agent(one) for one in item.get("instances") or ()]),
    Column("Drained by", "drainedBy"),
    at("Drained since", "drainedAt"),
    Column("Running", "runningSessions"),
    Column("Reserved", "reservedSessions"),
    Column("Sessions at most", "capacity.maxSessions"),
    Column("CPU", "capacity.cpu"),
    Column("Memory", lambda item: _memory(item.get("capacity"))),
    Column("Labels", lambda item: [f"{k}={v}" for k, v in (item.get("labels") or {}).items()]),
    Column("Waiting commands", _waiting),
    Column("Oldest waits (s)", "oldestWaitingSeconds"),
    at("Seen", "lastSeenAt"),
    at("Enrolled", "createdAt"),
)

_AT_WORK = ("pending", "starting", "running", "hibernating", "waking", "terminating", "unknown")
"""States of sessions that a cluster under maintenance would cut off."""
_COUNTED = 200
_PAUSE = 2.0

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
        bool,
        typer.Option(
            "--replace",
            help="A new enrolment for a cluster that exists. Its agents are put out at once, "
            "and come back with the new file.",
        ),
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
    here = only_from_its_own_machine(enrolment)
    if here is not None:
        run.note(
            f"It leads to {here}, which only the control plane's own machine reaches. How to let "
            "agents of other machines in: docs/how-to/connect-a-cluster.md"
        )
    run.printer.line(str(path))


def only_from_its_own_machine(enrolment: Mapping[str, Any]) -> str | None:
    """The first address of an enrolment that is one of loopback; None if there is none."""
    for url in (*enrolment["natsUrls"], enrolment["tunnelUrl"]):
        host = urlsplit(url).hostname or ""
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = host == "localhost" or host.endswith(".localhost")
        if loopback:
            return str(url)
    return None


@command(app)
def revoke(run: Run, cluster: ClusterId) -> None:
    """Put a cluster's agents out at once, and let none in until it is enrolled again.

    Its sessions go on running; nobody reaches them meanwhile.
    """
    with run.api() as api:
        api.post(f"/clusters/{cluster}/revoke")
    run.note(
        f"{cluster} is revoked. To let it in again: streamspace clusters enrol {cluster} --replace"
        f"\nTo be rid of it for good: streamspace clusters remove {cluster}"
    )


@command(app)
def remove(
    run: Run,
    cluster: ClusterId,
    end_sessions: Annotated[
        bool,
        typer.Option(
            "--end-sessions",
            help="Although it has sessions: they end with it, and their owners are told why.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a cluster that will not come back; revoke its access before.

    Nothing of it is kept but the history of its sessions. What still runs there goes on until
    somebody ends it on that machine. One enrolled by the same name later starts clean.
    """
    with run.api() as api:
        found = api.get(f"/clusters/{cluster}")
        if not yes:
            _confirm_removal(cluster, int(found["reservedSessions"]) if end_sessions else 0)
        answer = api.delete(f"/clusters/{cluster}", end_sessions=end_sessions or None)
    ended = answer["endedSessions"]
    run.note(f"{cluster} is removed." + (f" {counted(ended, 'session')} ended." if ended else ""))


def _confirm_removal(cluster: str, sessions: int) -> None:
    """Ask, on stderr.

    Raises:
        CliError: the answer is no, or there is nobody to ask.
    """
    ending = f" and end {counted(sessions, 'session')}" if sessions else ""
    try:
        agreed = typer.confirm(f"Remove {cluster} for good{ending}?", err=True)
    except typer.Abort as error:
        raise CliError(
            "Nothing was removed: nobody confirmed it.", hint="A script says --yes."
        ) from error
    if not agreed:
        raise CliError("Nothing was removed.")


@command(app)
def drain(
    run: Run,
    cluster: ClusterId,
    hibernate: Annotated[
        bool, typer.Option("--hibernate", help="Put the sessions that run there to rest, too.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until nothing runs there any more.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=0)] = 3600.0,
) -> None:
    """Place no new sessions on a cluster; those it has stay. Draining it twice is no error."""
    with run.api() as api:
        answer = api.post(f"/clusters/{cluster}/drain", {"hibernate": hibernate})
        found = answer["cluster"]
        run.note(f"{cluster} takes no new sessions.")
        if hibernate:
            run.note(f"{counted(answer['hibernating'], 'session')} to be put to rest.")
        if wait:
            _wait_until_empty(run, api, cluster, hibernate=hibernate, timeout=timeout)
            found = api.get(f"/clusters/{cluster}")
    run.printer.one(found, _DETAILS)


@command(app)
def undrain(run: Run, cluster: ClusterId) -> None:
    """Let a cluster take new sessions again."""
    with run.api() as api:
        run.printer.one(api.post(f"/clusters/{cluster}/undrain"), _DETAILS)


def _wait_until_empty(run: Run, api: Api, cluster: str, *, hibernate: bool, timeout: float) -> None:
    """Until no session runs there, or is about to.

    Raises:
        CliError: some still do after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    told = None
    while left := list(
        api.pages("/sessions", cluster_id=cluster, everyone=True, state=_AT_WORK, limit=_COUNTED)
    ):
        if told != len(left):
            told = len(left)
            more = " or more" if told == _COUNTED else ""
            run.note(f"  {counted(told, 'session')}{more} still there")
        if time.monotonic() >= deadline:
            raise CliError(
                f"{counted(len(left), 'session')} still on {cluster} after {timeout:.0f} s: "
                f"{', '.join(str(one['id']) for one in left[:5])}.",
                ExitCode.TIMED_OUT,
                hint="It takes no new ones; `streamspace clusters undrain` ends that.",
            )
        time.sleep(min(_PAUSE, max(deadline - time.monotonic(), 0)))
        if hibernate and any(one["state"] == "running" for one in left):
            # What had just begun to start when we asked runs by now.
            api.post(f"/clusters/{cluster}/drain", {"hibernate": True})


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
