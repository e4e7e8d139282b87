"""Lets somebody who owns the installation back in, when no admin can sign in any more.

Whoever can run this holds the database's password, so it asks for nothing else. The
user gets a generated password, is enabled and an admin; their other sign-ins end, and
the change is told like any other. It needs the database only, and may run beside the
service.

Usage: python -m streamspace_auth.recovery [USERNAME]
"""

import argparse
import asyncio
import secrets
import sys
from typing import ClassVar

from pydantic_settings import SettingsConfigDict

from streamspace_auth.domain.accounts import Changes, changed, username_key
from streamspace_auth.domain.logins import account_key
from streamspace_auth.first_start import ADMIN, GENERATED_BYTES
from streamspace_auth.passwords import Argon2Passwords
from streamspace_auth.ports import Passwords, Store
from streamspace_auth.settings import SERVICE
from streamspace_auth.store import AuthStore
from streamspace_common.contracts.events import UserChanged
from streamspace_common.contracts.identity import Role, system_actor
from streamspace_common.contracts.ids import new_message_id
from streamspace_common.runtime.settings import (
    DatabaseSettings,
    ServiceSettings,
    load,
    service_config,
)
from streamspace_common.store.engine import Database
from streamspace_common.store.errors import StoreUnavailableError


class RecoverySettings(ServiceSettings, DatabaseSettings):
    """Of the auth service's settings, those that this needs."""

    model_config: ClassVar[SettingsConfigDict] = service_config(SERVICE)


class UnknownUserError(LookupError):
    """There is no user of that name."""


async def recover(store: Store, passwords: Passwords, username: str) -> str:
    """Make the user an enabled admin with a new password, and return the password.

    Raises:
        UnknownUserError: nothing was changed.
    """
    password = secrets.token_urlsafe(GENERATED_BYTES)
    wanted = Changes(role=Role.ADMIN, disabled=False, password_hash=await passwords.hash(password))
    async with store.transaction() as tx:
        before = await tx.accounts.by_name(username_key(username), lock=True)
        if before is None:
            raise UnknownUserError(username)
        after, names = changed(before, wanted, tx.now)
        await tx.accounts.save(after)
        await tx.failures.clear(account_key(after.user.username))
        await tx.families.revoke_all(after.id, tx.now)
        await tx.emit(
            UserChanged(
                id=str(new_message_id()),
                at=tx.now,
                actor=system_actor(SERVICE),
                user_id=after.id,
                user=after.user,
                changed=names,
            )
        )
    return password


async def _run(settings: RecoverySettings, username: str) -> str:
    database = Database.connect(
        settings.database_url.get_secret_value(), pool_size=1, application=f"{SERVICE}-recovery"
    )
    passwords = Argon2Passwords(threads=1)
    try:
        return await recover(AuthStore(database), passwords, username)
    finally:
        passwords.close()
        await database.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m streamspace_auth.recovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("username", nargs="?", default=ADMIN)
    username = parser.parse_args().username
    try:
        password = asyncio.run(_run(load(RecoverySettings), username))
    except UnknownUserError:
        sys.exit(f"There is no user {username}.")
    except StoreUnavailableError as error:
        sys.exit(f"The database cannot be reached: {error}")
    print(  # noqa: T201 - shown to the person who asked, and kept nowhere
        f"Sign in as {username} with the password {password}\n"
        "It is shown only now; the account menu changes it."
    )


if __name__ == "__main__":
    main()
