"""Dead letters: commands that gave up, for operators to settle."""

from enum import StrEnum
from typing import Annotated

import typer

from streamspace_cli import complete
from streamspace_cli.api import Json
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Column, at, since
from streamspace_cli.run import Run, command, group

app = group("Dead letters: commands that gave up, for operators.")


class State(StrEnum):
    OPEN = "open"
    RETRIED = "retried"
    DISCARDED = "discarded"


_COLUMNS = (
    Column("Id", "id"),
    Column("State", "state"),
    since("Age", "diedAt"),
    Column("Cluster", "clusterId"),
    Column("Session", "sessionId"),
    Column("Action", "action"),
    Column("Deliveries", "deliveries"),
    Column("Reason", "reason"),
)
_DETAILS = (
    Column("Id", "id"),
    Column("State", "state"),
    Column("Reason", "reason"),
    Column("Cause", "cause"),
    Column("Cluster", "clusterId"),
    Column("Session", "sessionId"),
    Column("Command", "commandId"),
    Column("Action", "action"),
    Column("Generation", "generation"),
    Column("Attempt", "attempt"),
    Column("Deliveries", "deliveries"),
    Column("Consumer", "consumer"),
    Column("Came from", lambda item: f"{item['originStream']} {item.get('originSequence') or ''}"),
    at("Died", "diedAt"),
    at("Settled", "settledAt"),
    Column("Settled by", "settledBy.name"),
    Column("Sent instead", "retriedAs"),
)

Letter = Annotated[str, typer.Argument(help="Its id.", autocompletion=complete.dead_letters)]
Letters = Annotated[
    list[str], typer.Argument(help="Their ids.", autocompletion=complete.dead_letters)
]


@command(app, "list")
def list_(
    run: Run,
    state: Annotated[
        list[State] | None, typer.Option(help="In this state; open ones by default.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Of this cluster.", autocompletion=complete.clusters)
    ] = None,
    session: Annotated[
        str | None, typer.Option(help="Of this session.", autocompletion=complete.sessions)
    ] = None,
) -> None:
    """List dead letters, the newest first."""
    with run.api() as api:
        found = api.pages(
            "/dead-letters", state=tuple(state or ()), cluster_id=cluster, session_id=session
        )
        run.printer.many(found, _COLUMNS)


@command(app)
def show(run: Run, letter: Letter) -> None:
    """Show a dead letter."""
    with run.api() as api:
        for found in api.pages("/dead-letters", state=tuple(State)):
            if found["id"] == letter:
                run.printer.one(found, _DETAILS)
                return
    raise CliError(f"There is no dead letter {letter}.", ExitCode.NOT_FOUND)


@command(app)
def retry(run: Run, letters: Letters) -> None:
    """Have the effect of commands that gave up brought about after all."""
    done: list[Json] = []
    with run.api() as api:
        for letter in letters:
            answer = api.post(f"/dead-letters/{letter}/retry")
            run.note(f"{letter} is retried as {answer['commandId']}.")
            done.append(answer["letter"])
    run.printer.many(done, _COLUMNS)


@command(app)
def discard(run: Run, letters: Letters) -> None:
    """Settle dead letters without doing anything for their commands."""
    with run.api() as api:
        done = [api.post(f"/dead-letters/{letter}/discard") for letter in letters]
    run.printer.many(done, _COLUMNS)
