"""How a session's past is shown."""

from collections.abc import Sequence

from streamspace_cli.api import Json
from streamspace_cli.output import Column, Format, at
from streamspace_cli.run import Run
from streamspace_cli.waterfall import actor_of, as_data, chains, describe, drawn

HISTORY = (
    at("When", "at"),
    Column("What", describe),
    Column("Who", actor_of),
    Column("Generation", "generation"),
    Column("Command", "commandId"),
    Column("Cluster", "clusterId"),
)
COMMANDS = (
    Column("Id", "id"),
    Column("Generation", "generation"),
    Column("Action", "action"),
    Column("State", "state"),
    Column("Attempt", "attempt"),
    Column("Who", actor_of),
    at("Created", "createdAt"),
    at("Ended", "completedAt"),
    Column("Error", "error"),
)


def show_trace(run: Run, entries: Sequence[Json]) -> None:
    """A history as its causal chains."""
    found = chains(entries)
    if run.printer.format is not Format.TABLE:
        run.printer.many([as_data(chain) for chain in found], ())
        return
    if not found:
        run.note("Nothing is known of it any more.")
    for number, chain in enumerate(found):
        if number:
            run.printer.line("")
        for line in drawn(chain, columns=run.printer.columns):
            run.printer.line(line)
