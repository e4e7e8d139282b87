"""Puts the commands together, and ends the process with a sentence and an exit code."""

import os
import signal
import sys
import traceback
from importlib import metadata
from typing import Annotated

import typer

from streamspace_cli import complete
from streamspace_cli.commands import (
    account,
    backups,
    catalogs,
    clusters,
    contexts,
    dead_letters,
    replay,
    sessions,
    streams,
    templates,
    users,
)
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Format, Printer
from streamspace_cli.run import CONTEXT, DEBUG, OUTPUT, Failure, group

app = group("StreamSpace: desktops and web applications from your clusters, in a browser.")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamspace {metadata.version('streamspace-cli')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
    output: Annotated[Format | None, typer.Option("--output", "-o", help="How to print.")] = None,
    context: Annotated[
        str | None, typer.Option(help="The server to talk to.", autocompletion=complete.contexts)
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Tell on stderr what is done.")] = False,
) -> None:
    # Every command has these, too: whoever writes them first need not know that.
    for name, value in ((OUTPUT, output), (CONTEXT, context), (DEBUG, "1" if debug else None)):
        if value is not None:
            os.environ[name] = value


account.add_to(app)
for _name, _singular, _group in (
    ("context", "contexts", contexts.app),
    ("templates", "template", templates.app),
    ("sessions", "session", sessions.app),
    ("clusters", "cluster", clusters.app),
    ("catalogs", "catalog", catalogs.app),
    ("users", "user", users.app),
    ("dlq", "dead-letters", dead_letters.app),
    ("streams", "stream", streams.app),
):
    app.add_typer(_group, name=_name)
    # Nobody should have to remember which of the two it was.
    app.add_typer(_group, name=_singular, hidden=True)
for _name, _group in (
    ("replay", replay.app),
    ("backup", backups.backup_app),
    ("restore", backups.restore_app),
):
    app.add_typer(_group, name=_name)


def main() -> None:
    """The console script `streamspace`."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Carry one command line out; returns its exit code."""
    try:
        app(arguments)
    except SystemExit as end:
        return _flushed(end.code if isinstance(end.code, int) else ExitCode.FAILED)
    except Failure as failure:
        return _flushed(_tell(failure.error, failure.run.printer, debug=failure.run.debug))
    except KeyboardInterrupt:
        return _flushed(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        return _flushed(ExitCode.BROKEN_PIPE)
    except Exception as error:  # noqa: BLE001 - the edge of the process
        return _flushed(_tell_unexpected(error))
    return _flushed(ExitCode.OK)


def _tell(error: CliError, printer: Printer, *, debug: bool) -> int:
    printer.error(" ".join(filter(None, (error.message, error.hint))))
    if debug:
        for name, value in error.more.items():
            printer.note(f"debug: {name}: {value}")
    return error.code


def _tell_unexpected(error: Exception) -> int:
    """A fault of ours. Its trace helps whoever mends it, and nobody else."""
    printer = Printer(Format.TABLE)
    if "--debug" in sys.argv:
        printer.note("".join(traceback.format_exception(error)))
    printer.error(
        f"Something went wrong that should not: {type(error).__name__}: {error}. "
        "Please report it with what --debug shows."
    )
    return ExitCode.FAILED


def _flushed(code: int) -> int:
    """Whoever reads our output may be gone; that is no reason to complain."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    return code


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
