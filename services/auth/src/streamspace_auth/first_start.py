"""What a new installation finds: an administrator, and, on one machine, a cluster.

Both steps run at every start and do nothing where nothing is missing. Replicas that
start together do them one after another, so there is one admin with one password.
"""

import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from streamspace_auth.access import BusAccess
from streamspace_auth.domain.accounts import Account, check_password, new_user
from streamspace_auth.handlers.clusters import enrol
from streamspace_auth.ports import EnrolledCluster, Enroller, Passwords, Store
from streamspace_auth.settings import SERVICE
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.events import UserCreated
from streamspace_common.contracts.identity import Role, system_actor
from streamspace_common.contracts.ids import ClusterId, new_message_id, new_user_id
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.private_files import write_private
from streamspace_common.runtime.supervisor import FatalError

log = get_logger(__name__)

ADMIN = "admin"
GENERATED_BYTES = 18

Reveal = Callable[[str], None]


async def ensure_admin(
    store: Store, passwords: Passwords, *, password: str | None, reveal: Reveal
) -> bool:
    """Create `admin` where there is no user at all.

    Args:
        store: where users are kept.
        passwords: hashes the password.
        password: the one to use; None generates one.
        reveal: shows a generated password. Called just before the admin is kept, because
            a password that is kept and not shown would lock everybody out; one that is
            shown and not kept is followed by another.

    Returns:
        Whether it was created.

    Raises:
        FatalError: the given password is not good enough.
    """
    async with store.transaction() as tx:
        if await tx.accounts.any_exists():
            return False
    chosen = password or secrets.token_urlsafe(GENERATED_BYTES)
    hashed = await passwords.hash(chosen)
    async with store.transaction() as tx:
        await tx.exclusively("first admin")
        if await tx.accounts.any_exists():
            return False
        user = new_user(new_user_id(), ADMIN, role=Role.ADMIN, now=tx.now)
        try:
            check_password(chosen, user)
        except ProblemError as error:
            raise FatalError(
                f"STREAMSPACE_ADMIN_PASSWORD is not good enough: {error.problem.detail}"
            ) from None
        await tx.accounts.add(Account(user, hashed, password_changed_at=tx.now))
        await tx.emit(
            UserCreated(
                id=str(new_message_id()),
                at=tx.now,
                actor=system_actor(SERVICE),
                user_id=user.id,
                user=user,
            )
        )
        if password is None:
            reveal(chosen)
    log.info("first admin created", user_id=user.id)
    return True


async def ensure_first_cluster(
    store: Store, enroller: Enroller, access: BusAccess, cluster_id: ClusterId, path: Path
) -> None:
    """Keep a valid enrolment of `cluster_id` in the file.

    A missing file, or one that lets nobody in, gives it a new enrolment; other addresses
    are only written anew. A cluster whose access was revoked, or that was removed, is left
    alone: somebody meant it.
    """
    async with store.transaction() as tx:
        await tx.exclusively(f"enrol {cluster_id}")
        present = _read(path)
        known = await tx.clusters.get(cluster_id, lock=True)
        if known is not None and known.revoked_at is not None:
            log.warning(
                "the first cluster's access is revoked; enrol it again for its agents to join",
                cluster_id=cluster_id,
            )
            return
        if known is None and await tx.clusters.was_removed(cluster_id):
            log.warning(
                "the first cluster was removed; enrol it again to have it back",
                cluster_id=cluster_id,
            )
            return
        if present is not None and _is_valid(present, known, enroller, cluster_id):
            wanted = enroller.relocated(present)
        else:
            wanted = await enrol(
                tx, enroller, access, cluster_id, name=None, actor=system_actor(SERVICE)
            )
        if wanted != present:
            _write(path, wanted.to_json().decode() + "\n")
            log.info("enrolment written", cluster_id=cluster_id, path=str(path))


def password_writer(path: Path | None) -> Reveal:
    """Shows a generated password in a private file, or else on stderr, never in the log."""
    if path is None:
        return _print_banner
    return lambda password: _write(path, password + "\n")


def _write(path: Path, text: str) -> None:
    """Write a private file.

    Raises:
        FatalError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, text)
    except OSError as error:
        raise FatalError(f"{path} cannot be written: {error.strerror}.") from error


def _print_banner(password: str) -> None:
    line = "=" * 72
    print(  # noqa: T201  the log must not have it, and the operator must
        f"\n{line}\n  Sign in as  {ADMIN}  with the password  {password}\n"
        f"  It is shown this once. Change it after signing in.\n{line}\n",
        file=sys.stderr,
        flush=True,
    )


def _read(path: Path) -> Enrolment | None:
    try:
        return Enrolment.from_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FatalError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError:
        log.warning("the enrolment file is not readable, it is written anew", path=str(path))
        return None


def _is_valid(
    present: Enrolment, known: EnrolledCluster | None, enroller: Enroller, cluster_id: ClusterId
) -> bool:
    return (
        known is not None
        and present.cluster_id == cluster_id
        and known.is_open
        and enroller.user_of(present) == known.credential
    )
