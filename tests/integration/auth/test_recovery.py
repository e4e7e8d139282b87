"""Somebody who owns the installation gets back in."""

import os
import subprocess
import sys

import pytest
from tests.integration.auth.installation import PASSWORD, Installation

from streamspace_auth.recovery import UnknownUserError, recover
from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.requests import AuthMethods, UpdateUser


async def test_a_disabled_user_becomes_an_admin_who_signs_in_with_the_new_password(
    auth: Installation,
) -> None:
    user = await auth.create("ada", password=PASSWORD)
    before = await auth.login("ada", PASSWORD)
    await auth.call(
        AuthMethods.UPDATE_USER,
        UpdateUser(principal=auth.admin, user_id=user.id, disabled=True),
    )
    parts, database = auth.parts()
    try:
        password = await recover(parts.store, parts.passwords, "Ada")
        with pytest.raises(UnknownUserError):
            await recover(parts.store, parts.passwords, "nobody")
    finally:
        parts.close()
        await database.dispose()
    after = await auth.login("ada", password)
    assert after.user.role is Role.ADMIN
    for attempt in (auth.login("ada", PASSWORD), auth.refresh(before.refresh_token)):
        with pytest.raises(ProblemError):
            await attempt


async def test_the_command_says_the_password_or_why_not(auth: Installation) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "streamspace_auth.recovery", *arguments],
            env={**os.environ, "STREAMSPACE_AUTH_DATABASE_URL": auth.database_url},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    missing = run("nobody")
    assert (missing.returncode, missing.stderr) == (1, "There is no user nobody.\n")
    said = run()
    assert said.returncode == 0, said.stderr
    password = said.stdout.splitlines()[0].rsplit(" ", 1)[1]
    assert (await auth.login("admin", password)).user.role is Role.ADMIN
