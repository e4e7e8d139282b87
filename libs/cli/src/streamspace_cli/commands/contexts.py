"""The servers this user knows."""

from typing import Annotated, Any

import typer

from streamspace_cli import complete
from streamspace_cli.output import Column
from streamspace_cli.run import Run, command, group

app = group("Servers you signed in to, and which one is used.")

Name = Annotated[
    str, typer.Argument(help="As `context list` names it.", autocompletion=complete.contexts)
]
_COLUMNS = (
    Column("In use", lambda item: "*" if item["inUse"] else ""),
    Column("Name", "name"),
    Column("Address", "url"),
    Column("User", "username"),
    Column("Signed in", "signedIn"),
)


@command(app, "list")
def list_(run: Run) -> None:
    """List the servers you know."""
    found, current = run.contexts.all()
    items: list[dict[str, Any]] = [
        {
            "name": context.name,
            "url": context.url,
            "username": context.username,
            "signedIn": context.tokens is not None,
            "inUse": context.name == current,
        }
        for context in found.values()
    ]
    run.printer.many(items, _COLUMNS)


@command(app)
def use(run: Run, name: Name) -> None:
    """Use a server from now on."""
    run.contexts.use(name)
    run.note(f"Commands go to {name} from now on.")


@command(app)
def delete(run: Run, name: Name) -> None:
    """Forget a server and the sign-in there."""
    gone = run.contexts.delete(name)
    hint = " Its sign-in ends by itself within a week." if gone.tokens else ""
    run.note(f"{name} is forgotten.{hint}")
