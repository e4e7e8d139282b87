"""Refresh-token families, in rows. A family's row is the lock of all its tokens."""

from datetime import datetime
from typing import cast
from uuid import UUID

from sqlalchemy import CursorResult, delete, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_auth.domain.families import Family, RefreshToken
from streamspace_auth.store.rows import FamilyRow, RefreshTokenRow
from streamspace_common.contracts.ids import UserId


class FamilyRows:
    """Implements `ports.Families`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, family: Family, first: RefreshToken) -> None:
        self._session.add(
            FamilyRow(
                id=family.id,
                user_id=family.user_id,
                created_at=family.created_at,
                expires_at=family.expires_at,
                revoked_at=family.revoked_at,
            )
        )
        await self._session.flush()
        await self.add_successor(first)

    async def find(self, digest: bytes) -> tuple[Family, RefreshToken] | None:
        family_of_token = (
            select(col(RefreshTokenRow.family_id))
            .where(col(RefreshTokenRow.digest) == digest)
            .scalar_subquery()
        )
        found = await self._session.exec(
            select(FamilyRow).where(col(FamilyRow.id) == family_of_token).with_for_update()
        )
        family = found.one_or_none()
        if family is None:
            return None
        # In a statement of its own: it has to see what was done while we waited for the lock.
        tokens = await self._session.exec(
            select(RefreshTokenRow).where(col(RefreshTokenRow.digest) == digest)
        )
        token = tokens.one_or_none()
        return (_family(family), _token(token)) if token is not None else None

    async def rotate(self, token: RefreshToken, successor: RefreshToken) -> None:
        await self._session.exec(
            update(RefreshTokenRow)
            .where(
                col(RefreshTokenRow.family_id) == token.family_id,
                col(RefreshTokenRow.generation) <= token.generation,
                col(RefreshTokenRow.rotated_at).is_(None),
            )
            .values(rotated_at=successor.issued_at)
        )
        await self.add_successor(successor)

    async def add_successor(self, successor: RefreshToken) -> None:
        self._session.add(
            RefreshTokenRow(
                digest=successor.digest,
                family_id=successor.family_id,
                generation=successor.generation,
                issued_at=successor.issued_at,
                expires_at=successor.expires_at,
                rotated_at=successor.rotated_at,
            )
        )
        await self._session.flush()

    async def revoke(self, family: Family, now: datetime) -> None:
        await self._session.exec(
            update(FamilyRow)
            .where(col(FamilyRow.id) == family.id, col(FamilyRow.revoked_at).is_(None))
            .values(revoked_at=now)
        )

    async def revoke_all(self, user_id: UserId, now: datetime, *, but: UUID | None = None) -> int:
        theirs = update(FamilyRow).where(
            col(FamilyRow.user_id) == user_id, col(FamilyRow.revoked_at).is_(None)
        )
        if but is not None:
            theirs = theirs.where(col(FamilyRow.id) != but)
        ended = await self._session.exec(theirs.values(revoked_at=now))
        return cast("CursorResult[tuple[()]]", ended).rowcount

    async def forget_before(self, moment: datetime) -> int:
        gone = await self._session.exec(delete(FamilyRow).where(col(FamilyRow.expires_at) < moment))
        return cast("CursorResult[tuple[()]]", gone).rowcount


def _family(row: FamilyRow) -> Family:
    return Family(
        id=row.id,
        user_id=UserId(row.user_id),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def _token(row: RefreshTokenRow) -> RefreshToken:
    return RefreshToken(
        digest=row.digest,
        family_id=row.family_id,
        generation=row.generation,
        issued_at=row.issued_at,
        expires_at=row.expires_at,
        rotated_at=row.rotated_at,
    )
