"""Users, for administrators."""

from enum import StrEnum
from typing import Annotated

import typer

from streamspace_cli import complete
from streamspace_cli.api import Api
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Column, at, since
from streamspace_cli.run import Run, command, group, read_password

app = group("Users, for administrators.")


class Role(StrEnum):
    USER = "user"
    OPERATOR = "operator"
    ADMIN = "admin"


_COLUMNS = (
    Column("Name", "username"),
    Column("Role", "role"),
    Column("Disabled", "disabled"),
    since("Signed in", "lastLoginAt"),
    Column("Id", "id"),
)
_DETAILS = (
    Column("Name", "username"),
    Column("Display name", "displayName"),
    Column("Email", "email"),
    Column("Role", "role"),
    Column("Disabled", "disabled"),
    Column("Id", "id"),
    at("Created", "createdAt"),
    at("Signed in", "lastLoginAt"),
)

User = Annotated[str, typer.Argument(help="The user's name or id.", autocompletion=complete.users)]
Stdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]


@command(app, "list")
def list_(
    run: Run,
    search: Annotated[str | None, typer.Argument(help="Part of the name.")] = None,
    role: Annotated[Role | None, typer.Option(help="Only with this role.")] = None,
) -> None:
    """List users."""
    with run.api() as api:
        run.printer.many(api.pages("/users", search=search, role=role), _COLUMNS)


@command(app)
def show(run: Run, user: User) -> None:
    """Show a user."""
    with run.api() as api:
        run.printer.one(api.get(f"/users/{_id(api, user)}"), _DETAILS)


@command(app)
def create(
    run: Run,
    username: Annotated[str, typer.Argument(help="What they sign in with.")],
    role: Annotated[Role, typer.Option()] = Role.USER,
    display_name: Annotated[str | None, typer.Option()] = None,
    email: Annotated[str | None, typer.Option()] = None,
    password_stdin: Stdin = False,
) -> None:
    """Create a user."""
    password = read_password(
        run, f"Password for {username}", from_stdin=password_stdin, confirm=True
    )
    body = {
        "username": username,
        "password": password,
        "role": role,
        "displayName": display_name,
        "email": email,
    }
    with run.api() as api:
        run.printer.one(api.post("/users", body), _DETAILS)


@command(app)
def password(run: Run, user: User, password_stdin: Stdin = False) -> None:
    """Set a user's password; their devices are signed out."""
    secret = read_password(run, f"New password of {user}", from_stdin=password_stdin, confirm=True)
    with run.api() as api:
        run.printer.one(api.patch(f"/users/{_id(api, user)}", {"password": secret}), _DETAILS)


@command(app)
def role(run: Run, user: User, role: Annotated[Role, typer.Argument()]) -> None:
    """Give a user another role."""
    with run.api() as api:
        run.printer.one(api.patch(f"/users/{_id(api, user)}", {"role": role}), _DETAILS)


@command(app)
def disable(run: Run, user: User) -> None:
    """Let a user in no more."""
    with run.api() as api:
        run.printer.one(api.patch(f"/users/{_id(api, user)}", {"disabled": True}), _DETAILS)


@command(app)
def enable(run: Run, user: User) -> None:
    """Let a user in again."""
    with run.api() as api:
        run.printer.one(api.patch(f"/users/{_id(api, user)}", {"disabled": False}), _DETAILS)


def _id(api: Api, user: str) -> str:
    """A user's id, by id or name.

    Raises:
        CliError: there is no such user.
    """
    if user.startswith("usr-"):
        return user
    for found in api.pages("/users", search=user):
        if found["username"] == user:
            return str(found["id"])
    raise CliError(f"There is no user {user}.", ExitCode.NOT_FOUND)
