"""Catalogs: git repositories that templates come from."""

import sys
import time
from typing import Annotated

import typer

from streamspace_cli import complete
from streamspace_cli.api import Api, Json
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Column, at, since
from streamspace_cli.run import Run, command, group

app = group("Catalogs: git repositories that templates come from.")

_POLL = 0.5
_COLUMNS = (
    Column("Id", "id"),
    Column("Name", "name"),
    Column("State", "state"),
    Column("Templates", "templateCount"),
    since("Synced", "lastSyncAt"),
    Column("Address", "url"),
)
_DETAILS = (
    *_COLUMNS[:4],
    Column("Branch", "branch"),
    Column("Commit", "commit"),
    Column("Error", "error"),
    at("Synced", "lastSyncAt"),
    Column("Address", "url"),
)
_FILES = (
    Column("File", "path"),
    Column("Outcome", "outcome"),
    Column("Template", "templateId"),
    Column("Reasons", "reasons"),
)

Catalog = Annotated[str, typer.Argument(help="Its id.", autocompletion=complete.catalogs)]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is synced.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at most.", min=0)]


@command(app, "list")
def list_(run: Run) -> None:
    """List catalogs."""
    with run.api() as api:
        run.printer.many(api.get("/catalogs")["items"], _COLUMNS)


@command(app)
def show(run: Run, catalog: Catalog) -> None:
    """Show a catalog."""
    with run.api() as api:
        run.printer.one(api.get(f"/catalogs/{catalog}"), _DETAILS)


@command(app)
def add(
    run: Run,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="https, ssh, or an absolute path on the server.")],
    branch: Annotated[str | None, typer.Option(help="Not the default one.")] = None,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read a password for https from stdin.")
    ] = False,
    wait: Wait = False,
    timeout: Timeout = 300.0,
) -> None:
    """Add a catalog; its first sync begins at once."""
    token = sys.stdin.readline().strip() if token_stdin else None
    with run.api() as api:
        added = api.post("/catalogs", {"name": name, "url": url, "branch": branch, "token": token})
        if wait:
            added = _synced(run, api, added, timeout)
    run.printer.one(added, _DETAILS)


@command(app)
def sync(run: Run, catalog: Catalog, wait: Wait = False, timeout: Timeout = 300.0) -> None:
    """Fetch a catalog's templates now."""
    with run.api() as api:
        found = api.post(f"/catalogs/{catalog}/sync")
        if wait:
            found = _synced(run, api, found, timeout)
    run.printer.one(found, _DETAILS)


@command(app)
def report(run: Run, catalog: Catalog) -> None:
    """Show what the last sync made of each file, and why."""
    with run.api() as api:
        found = api.get(f"/catalogs/{catalog}/report")
    run.printer.many(found["files"], _FILES)
    if found.get("omitted"):
        run.note(f"{found['omitted']} files more are left out.")


@command(app)
def remove(run: Run, catalog: Catalog) -> None:
    """Remove a catalog; sessions of its templates keep running."""
    with run.api() as api:
        api.delete(f"/catalogs/{catalog}")
    run.note(f"{catalog} is removed.")


def _synced(run: Run, api: Api, catalog: Json, timeout: float) -> Json:
    """The catalog once its sync has ended."""
    deadline = time.monotonic() + timeout
    told = None
    while True:
        if catalog["state"] != told:
            told = catalog["state"]
            run.note(f"{catalog['id']}: {told}")
        if told == "synced":
            return catalog
        if told == "failed":
            raise CliError(f"{catalog['id']} could not be synced: {catalog.get('error')}")
        if time.monotonic() >= deadline:
            raise CliError(
                f"{catalog['id']} is still {told} after {timeout:.0f} s.", ExitCode.TIMED_OUT
            )
        time.sleep(_POLL)
        catalog = api.get(f"/catalogs/{catalog['id']}")
