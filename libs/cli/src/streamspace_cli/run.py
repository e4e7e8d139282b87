"""One invocation: what every command is given, and the options every command takes.

A command is a function whose first parameter is its `Run`. `command` registers it with
`--output`, `--context` and `--debug` besides its own options, so that these three stand
wherever a user puts them.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from streamspace_cli import complete
from streamspace_cli.api import Api, not_signed_in, open_client
from streamspace_cli.contexts import (
    Context,
    Contexts,
    Tokens,
    default_path,
    name_for,
    no_such_context,
    normal_url,
)
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Format, Printer

DEFAULT_URL = "http://localhost:8080"
URL = "STREAMSPACE_URL"
TOKEN = "STREAMSPACE_TOKEN"  # noqa: S105 - a variable's name
CONTEXT = "STREAMSPACE_CONTEXT"
OUTPUT = "STREAMSPACE_OUTPUT"
DEBUG = "STREAMSPACE_DEBUG"

Arguments = ParamSpec("Arguments")
Function = Callable[Concatenate["Run", Arguments], None]


@dataclass
class Run:
    """What a command may use; connections are made when they are asked for."""

    printer: Printer
    context_name: str | None = None
    debug: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def contexts(self) -> Contexts:
        return Contexts(default_path(self.environment))

    def context(self) -> Context:
        """The server to talk to: `--context`, then STREAMSPACE_URL, then the one in use.

        Raises:
            CliError: it is unknown, or there is none yet.
        """
        found, current = self.contexts.all()
        token = self.environment.get(TOKEN)
        chosen = self._chosen(found, current)
        if chosen is None:
            raise CliError(
                "No server is known yet.",
                ExitCode.NOT_SIGNED_IN,
                hint=f"Run `streamspace login {DEFAULT_URL}`, or set {URL} and {TOKEN}.",
            )
        if token:
            return Context(chosen.name, chosen.url, ca_file=chosen.ca_file, tokens=Tokens(token))
        return chosen

    def _chosen(self, found: Mapping[str, Context], current: str | None) -> Context | None:
        if self.context_name is not None:
            if self.context_name not in found:
                raise no_such_context(self.context_name, found)
            return found[self.context_name]
        if url := self.environment.get(URL):
            url = normal_url(url)
            known = [context for context in found.values() if context.url == url]
            preferred = [context for context in known if context.name == current]
            return (preferred or known or [Context(name_for(url), url)])[0]
        return found[current] if current is not None else None

    @contextmanager
    def api(self, *, timeout: float = 30.0) -> Iterator[Api]:
        """The chosen server's API, for a user who is signed in.

        Raises:
            CliError: nobody is.
        """
        context = self.context()
        if context.tokens is None:
            raise not_signed_in(context)
        with self.api_of(context, timeout=timeout) as api:
            yield api

    @contextmanager
    def api_of(self, context: Context, *, timeout: float = 30.0) -> Iterator[Api]:
        given = bool(self.environment.get(TOKEN))
        api = Api(
            open_client(context, timeout=timeout),
            context,
            None if given else self.contexts,
            log=self.trace,
        )
        try:
            yield api
        finally:
            api.close()

    def note(self, text: str) -> None:
        self.printer.note(text)

    def trace(self, text: str) -> None:
        """Shown with `--debug` only."""
        if self.debug:
            self.printer.note(f"debug: {text}")


class Failure(Exception):  # noqa: N818 - it wraps the error that says what is wrong
    """A `CliError` with the run it ended, so that it is told the way the run asked for."""

    def __init__(self, error: CliError, run: Run) -> None:
        super().__init__(error.message)
        self.error = error
        self.run = run


_Output = Annotated[
    Format,
    typer.Option("--output", "-o", envvar=OUTPUT, help="How to print.", show_envvar=False),
]
_Context = Annotated[
    str | None,
    typer.Option(
        "--context",
        envvar=CONTEXT,
        show_envvar=False,
        help="The server to talk to, as `context list` names it.",
        autocompletion=complete.contexts,
    ),
]
_Debug = Annotated[
    bool,
    typer.Option("--debug", envvar=DEBUG, show_envvar=False, help="Tell on stderr what is done."),
]

_SHARED = (
    inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, default=Format.TABLE,
                      annotation=_Output),
    inspect.Parameter("context_name", inspect.Parameter.KEYWORD_ONLY, default=None,
                      annotation=_Context),
    inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Debug),
)  # fmt: skip


def command(
    app: typer.Typer, name: str | None = None, *, hidden: bool = False
) -> Callable[[Callable[Concatenate[Run, Arguments], None]], Callable[..., None]]:
    """Register a command of `app`; its help is the function's docstring."""

    def register(function: Callable[Concatenate[Run, Arguments], None]) -> Callable[..., None]:
        @wraps(function)
        def invoke(
            *given: Any,
            output: Format = Format.TABLE,
            context_name: str | None = None,
            debug: bool = False,
            **named: Any,
        ) -> None:
            run = Run(Printer(output), context_name, debug)
            try:
                function(run, *given, **named)
            except CliError as error:
                raise Failure(error, run) from error

        _, *own = inspect.signature(function).parameters.values()
        keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        invoke.__signature__ = inspect.Signature([*keywords, *_SHARED])  # type: ignore[attr-defined]
        # typer reads hints too; those of the function would bring `run` back.
        invoke.__annotations__ = {each.name: each.annotation for each in (*own, *_SHARED)}
        del invoke.__wrapped__
        app.command(name, hidden=hidden)(invoke)
        return invoke

    return register


def group(about: str) -> typer.Typer:
    """A group of commands; called without one of them, it shows its help."""
    return typer.Typer(
        help=about,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def read_password(run: Run, question: str, *, from_stdin: bool, confirm: bool = False) -> str:
    """Ask for a password without showing it, or read the first line of stdin.

    Raises:
        CliError: there is nobody to ask, or nothing was given.
    """
    stdin = typer.get_text_stream("stdin")
    if from_stdin:
        password = stdin.readline().rstrip("\r\n")
    elif stdin.isatty():
        password = typer.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)
    else:
        raise CliError(
            "There is no terminal to ask for the password.",
            ExitCode.USAGE,
            hint="Give it with --password-stdin.",
        )
    if not password:
        raise CliError("No password was given.", ExitCode.USAGE)
    return str(password)


def existing_file(path: Path) -> str:
    """An absolute path of a file, to be kept.

    Raises:
        CliError: there is none.
    """
    if not path.is_file():
        raise CliError(f"There is no file {path}.", ExitCode.USAGE)
    return str(path.resolve())
