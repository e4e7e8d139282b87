"""Signing in and out, and who one is."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from streamspace_cli.api import not_signed_in
from streamspace_cli.contexts import Context, Tokens, is_loopback, name_for, normal_url
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Column, at
from streamspace_cli.run import (
    DEFAULT_URL,
    TOKEN,
    URL,
    Run,
    command,
    existing_file,
    read_password,
)

_USER = (
    Column("Name", "username"),
    Column("Role", "role"),
    Column("Display name", "displayName"),
    Column("Email", "email"),
    Column("Id", "id"),
    at("Signed in at", "lastLoginAt"),
)


def add_to(app: typer.Typer) -> None:
    command(app)(login)
    command(app)(logout)
    command(app)(whoami)
    command(app)(token)


def login(
    run: Run,
    url: Annotated[
        str | None,
        typer.Argument(help=f"The server's address; the context's, or {DEFAULT_URL}."),
    ] = None,
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="Asked for where it is left out.")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from stdin.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call this server; its host and port.")
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="Certificate authorities (PEM) trusted besides the system's own."),
    ] = None,
) -> None:
    """Sign in to a server, and use it from now on.

    The password is asked for and not kept; what is kept (mode 0600) is good for this
    command line until `logout`, or for a week without use.
    """
    context = _context_for(run, url, name)
    if ca_file is not None:
        context = replace(context, ca_file=existing_file(ca_file))
    if context.url.startswith("http://") and not is_loopback(context.url):
        run.note("Warning: this address is not encrypted; others may read the password.")
    username = username or _ask_name(context.username)
    password = read_password(run, f"Password of {username}", from_stdin=password_stdin)
    with run.api_of(replace(context, tokens=None)) as api:
        answer = api.sign_in(username, password)
    signed_in = replace(context, username=str(answer["user"]["username"]), tokens=Tokens.of(answer))
    run.contexts.save(signed_in, use=True)
    run.note(f"Signed in at {context.url} as {signed_in.username} ({answer['user']['role']}).")


def logout(run: Run) -> None:
    """Sign out: what was kept is forgotten, here and on the server."""
    context = run.context()
    if run.environment.get(TOKEN):
        raise CliError(f"{TOKEN} is set: there is nothing to sign out of.", ExitCode.USAGE)
    if context.tokens is None:
        raise not_signed_in(context)
    try:
        with run.api_of(context) as api:
            api.sign_out()
    finally:
        # Also where the server is away: nobody should find the tokens here.
        run.contexts.save(replace(context, tokens=None))
    run.note(f"Signed out at {context.url}.")


def whoami(run: Run) -> None:
    """Show who is signed in."""
    with run.api() as api:
        run.printer.one(api.get("/users/me"), _USER)


def token(run: Run) -> None:
    """Print an access token, good for some minutes, for other programs."""
    with run.api() as api:
        run.printer.line(api.access_token())


def _context_for(run: Run, url: str | None, name: str | None) -> Context:
    """The context that signing in makes or renews."""
    found, current = run.contexts.all()
    url = url or (None if run.context_name else run.environment.get(URL))
    name = name or run.context_name
    if url is None:
        known = found.get(name or current or "")
        if known is not None:
            return known
        url = DEFAULT_URL
    url = normal_url(url)
    known = found.get(name or name_for(url))
    if known is not None and known.url == url:
        return known
    return Context(name or name_for(url), url)


def _ask_name(known: str | None) -> str:
    if not typer.get_text_stream("stdin").isatty():
        if known is not None:
            return known
        raise CliError(
            "There is no terminal to ask for the user name.",
            ExitCode.USAGE,
            hint="Give it with --username.",
        )
    return str(typer.prompt("User name", default=known, err=True))
