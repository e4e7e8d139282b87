"""Sessions: create, look, open, hibernate, wake, end; and what happened to them."""

import sys
import uuid
import webbrowser
from typing import Annotated, Any

import typer

from streamspace_cli import complete, moments
from streamspace_cli.api import Api, Json
from streamspace_cli.commands import pasts
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.following import FINAL, updates, wait_for
from streamspace_cli.output import Column, at, moment, plain, since, span
from streamspace_cli.run import Run, command, group

app = group("Sessions: desktops and applications that run for you.")

_COLUMNS = (
    Column("Id", "id"),
    Column("State", "state"),
    Column("Template", "templateDisplayName"),
    Column("Cluster", "clusterId"),
    Column("Owner", "owner.username"),
    since("Age", "createdAt"),
)
DETAILS = (
    Column("Id", "id"),
    Column("State", "state"),
    Column("Wanted", "desired"),
    Column("Message", "message"),
    Column("Template", "templateId"),
    Column("Cluster", "clusterId"),
    Column("Owner", "owner.username"),
    Column("CPU", "resources.cpu"),
    Column("Memory", "resources.memory"),
    Column("Home is kept", "persistentHome"),
    Column("Idle timeout", lambda item: _limit(item.get("idleTimeout"))),
    Column("Ends after", lambda item: _limit(item.get("maxDuration"))),
    at("Created", "createdAt"),
    at("Started", "startedAt"),
    at("Last used", "lastActivityAt"),
    at("Ended", "terminatedAt"),
)

SessionId = Annotated[str, typer.Argument(help="Its id.", autocompletion=complete.sessions)]
LiveId = Annotated[str, typer.Argument(help="Its id.", autocompletion=complete.live_sessions)]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait until it is done; show how far it is.")
]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at most.", min=0)]


@command(app)
def create(
    run: Run,
    template: Annotated[
        str,
        typer.Argument(
            help="A template's id, or its name where only one catalog has it.",
            autocompletion=complete.templates,
        ),
    ],
    cluster: Annotated[
        str | None, typer.Option(help="Only there.", autocompletion=complete.clusters)
    ] = None,
    cpu: Annotated[str | None, typer.Option(help="For instance 500m.")] = None,
    memory: Annotated[str | None, typer.Option(help="For instance 2Gi.")] = None,
    persistent_home: Annotated[
        bool, typer.Option("--persistent-home/--no-persistent-home", help="Keep its files.")
    ] = True,
    idle_timeout: Annotated[
        int | None, typer.Option(help="Seconds without input until it hibernates.")
    ] = None,
    max_duration: Annotated[int | None, typer.Option(help="Seconds until it is ended.")] = None,
    wait: Wait = False,
    timeout: Timeout = 300.0,
) -> None:
    """Start a session."""
    body: Json = {"template": template, "persistentHome": persistent_home}
    resources = {name: v for name, v in (("cpu", cpu), ("memory", memory)) if v is not None}
    given: dict[str, Any] = {
        "clusterId": cluster,
        "idleTimeout": idle_timeout,
        "maxDuration": max_duration,
        "resources": resources or None,
    }
    body |= {name: value for name, value in given.items() if value is not None}
    with run.api() as api:
        session = api.post("/sessions", body, key=str(uuid.uuid4()))["session"]
        if wait:
            session = wait_for(api, session, "running", timeout=timeout, tell=run.note)
    run.printer.one(session, DETAILS)


@command(app, "list")
def list_(
    run: Run,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Of this template.", autocompletion=complete.templates)
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="On this cluster.", autocompletion=complete.clusters)
    ] = None,
    everyone: Annotated[
        bool, typer.Option("--everyone", help="Everybody's, for operators.")
    ] = False,
    final: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")] = False,
    limit: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
) -> None:
    """List sessions, the newest first."""
    with run.api() as api:
        found = api.pages(
            "/sessions",
            limit=limit,
            state=tuple(state or ()),
            template_id=template,
            cluster_id=cluster,
            everyone=everyone or None,
            include_final=final or None,
        )
        run.printer.many(found, _COLUMNS)


@command(app)
def show(run: Run, session: SessionId) -> None:
    """Show a session."""
    with run.api() as api:
        run.printer.one(api.get(f"/sessions/{session}"), DETAILS)


@command(app, "open")
def open_(
    run: Run,
    session: LiveId,
    browser: Annotated[
        bool | None,
        typer.Option("--browser/--no-browser", help="Open it; by default on a terminal."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it runs.")] = True,
    timeout: Timeout = 300.0,
) -> None:
    """Print where a session can be used, and open a browser there."""
    with run.api() as api:
        found = api.get(f"/sessions/{session}")
        if found["state"] in FINAL:
            raise CliError(
                f"{session} is {found['state']}.", ExitCode.CONFLICT, hint="Create another one."
            )
        if found["state"] == "hibernated":
            raise CliError(
                f"{session} is hibernated.",
                ExitCode.CONFLICT,
                hint=f"Run `streamspace sessions wake {session}`.",
            )
        if wait and found["state"] != "running":
            wait_for(api, found, "running", timeout=timeout, tell=run.note)
        url = f"{api.url}/sessions/{session}/view"
    run.printer.record({"url": url}, url)
    if sys.stdout.isatty() if browser is None else browser:
        webbrowser.open(url)


@command(app)
def stop(
    run: Run,
    session: LiveId,
    delete_home: Annotated[
        bool, typer.Option("--delete-home", help="Remove its owner's files too.")
    ] = False,
    wait: Wait = False,
    timeout: Timeout = 120.0,
) -> None:
    """End a session; ending it twice is no error."""
    with run.api() as api:
        accepted = api.delete(f"/sessions/{session}", delete_home=delete_home or None)
        _finish(run, api, accepted["session"], "terminated" if wait else None, timeout)


@command(app)
def hibernate(run: Run, session: LiveId, wait: Wait = False, timeout: Timeout = 120.0) -> None:
    """Stop what runs and keep the files; `wake` brings it back."""
    with run.api() as api:
        accepted = api.post(f"/sessions/{session}/hibernate")
        _finish(run, api, accepted["session"], "hibernated" if wait else None, timeout)


@command(app)
def wake(run: Run, session: LiveId, wait: Wait = False, timeout: Timeout = 300.0) -> None:
    """Bring a hibernated session back."""
    with run.api() as api:
        accepted = api.post(f"/sessions/{session}/wake")
        _finish(run, api, accepted["session"], "running" if wait else None, timeout)


@command(app)
def events(run: Run, session: SessionId) -> None:
    """Follow what happens to a session, until it ends or Ctrl-C."""
    with run.api() as api:
        for name, data in updates(api, session):
            run.printer.record({"event": name, **data}, _told(name, data))
            shown = data if name == "snapshot" else data.get("session") or {}
            if shown.get("state") in FINAL:
                return


@command(app)
def history(run: Run, session: SessionId) -> None:
    """Show what happened to a session: when, by whom and why."""
    with run.api() as api:
        run.printer.many(api.pages(f"/sessions/{session}/history"), pasts.HISTORY)


@command(app)
def commands(run: Run, session: SessionId) -> None:
    """Show what was asked of a session's cluster, and what came of it."""
    with run.api() as api:
        run.printer.many(api.get(f"/sessions/{session}/commands")["items"], pasts.COMMANDS)


@command(app)
def trace(run: Run, session: SessionId) -> None:
    """Show the causal chain: each command, all that followed of it, and what took how long."""
    with run.api() as api:
        entries = list(api.pages(f"/sessions/{session}/history"))
    pasts.show_trace(run, entries)


@command(app, "at")
def at_(
    run: Run,
    session: SessionId,
    time: Annotated[str, typer.Argument(help=moments.HELP)],
) -> None:
    """Show a session as it was at a time."""
    with run.api() as api:
        found = api.get(f"/sessions/{session}", at=moments.written(moments.parse(time)))
    run.printer.one(found, DETAILS)


def _finish(run: Run, api: Api, session: Json, wanted: str | None, timeout: float) -> None:
    if wanted is not None:
        session = wait_for(api, session, wanted, timeout=timeout, tell=run.note)
    run.printer.one(session, DETAILS)


def _told(name: str, data: Json) -> str:
    """An event as a line."""
    match name:
        case "snapshot":
            when, words = data.get("updatedAt"), _state(data)
        case "phase":
            timing = data.get("timing") or {}
            when = data.get("at")
            words = f"{timing.get('phase')} after {timing.get('elapsedMs', 0) / 1000:.1f} s"
        case "state":
            when, words = data.get("at"), _state(data.get("session") or {})
        case "activity":
            when, words = data.get("at"), f"{data.get('viewers')} viewers"
        case _:
            when, words = data.get("at"), str(data.get("message") or "")
    return plain(f"{moment(when)}  {name:<8}  {words}".rstrip())


def _state(session: Json) -> str:
    return ": ".join(str(session[name]) for name in ("state", "message") if session.get(name))


def _limit(seconds: float | None) -> str | None:
    return None if seconds is None else span(seconds)
