"""One database and one role per owning service, on the installation's own PostgreSQL."""

import asyncpg

from streamspace_embedded.trust import DATABASES


async def prepare(admin_url: str, passwords: dict[str, str]) -> None:
    """Create roles and databases that are missing, and set the roles' passwords.

    Each role owns its own database and cannot even connect to another one's.
    """
    connection = await asyncpg.connect(admin_url)
    try:
        for name in DATABASES:
            role = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name)
            verb = "ALTER" if role else "CREATE"
            password = await connection.fetchval("SELECT quote_literal($1::text)", passwords[name])
            await connection.execute(f'{verb} ROLE "{name}" LOGIN PASSWORD {password}')
            # To give it a database. An administrator that is no superuser, as managed servers
            # have them, may do so only as a member.
            await connection.execute(f'GRANT "{name}" TO CURRENT_USER')
            database = await connection.fetchval(
                "SELECT 1 FROM pg_database WHERE datname = $1", name
            )
            if not database:
                await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
            await connection.execute(f'REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC')
    finally:
        await connection.close()
