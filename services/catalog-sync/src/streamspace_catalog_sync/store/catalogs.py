"""Catalogs as operators see them: added, listed, removed, made due."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_catalog_sync.domain import STARTER
from streamspace_catalog_sync.ports import BuiltInError, CatalogExistsError, NewCatalog
from streamspace_catalog_sync.store.rows import CatalogRow, FileReportRow, TemplateRow
from streamspace_common.contracts.catalog import Catalog, CatalogState, FileReport
from streamspace_common.contracts.events import CatalogAdded, CatalogRemoved, TemplateWithdrawn
from streamspace_common.contracts.identity import Actor, system_actor
from streamspace_common.contracts.ids import CatalogId, TemplateId, new_message_id
from streamspace_common.store.engine import Database
from streamspace_common.store.outbox import enqueue_event

SERVICE: Final = "catalog-sync"
STARTER_URL: Final = "builtin:starter"


class CatalogStore:
    """Implements `ports.Catalogs`, and keeps the starter catalog as the settings say."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> Sequence[Catalog]:
        """All catalogs, the built-in one first, then by name."""
        query = select(CatalogRow).order_by(
            col(CatalogRow.built_in).desc(), func.lower(CatalogRow.name), col(CatalogRow.id)
        )
        async with self._database.transaction() as session:
            return [row.to_contract() for row in (await session.execute(query)).scalars()]

    async def get(self, id_: CatalogId) -> Catalog | None:
        async with self._database.transaction() as session:
            row = await session.get(CatalogRow, id_)
        return row.to_contract() if row is not None else None

    async def report(self, id_: CatalogId) -> tuple[Catalog, Sequence[FileReport]] | None:
        """A catalog and what its last completed sync made of each file, by path."""
        query = (
            select(FileReportRow)
            .where(col(FileReportRow.catalog_id) == id_)
            .order_by(col(FileReportRow.position))
        )
        async with self._database.transaction() as session:
            row = await session.get(CatalogRow, id_)
            if row is None:
                return None
            files = (await session.execute(query)).scalars().all()
        return row.to_contract(), [file.to_contract() for file in files]

    async def add(self, new: NewCatalog, actor: Actor) -> Catalog:
        """Store a catalog, to be synced at once.

        Raises:
            CatalogExistsError: its name, or its repository and branch, is taken.
        """
        async with self._database.transaction() as session:
            now = await self._database.now(session)
            values = _new_values(new, now, actor, built_in=False)
            statement = insert(CatalogRow).values(values).on_conflict_do_nothing()
            added = (await session.execute(statement.returning(col(CatalogRow.id)))).scalar()
            if added is None:
                raise CatalogExistsError
            row = await session.get_one(CatalogRow, new.id)
            await _tell_added(session, row, now, actor)
        return row.to_contract()

    async def remove(self, id_: CatalogId, actor: Actor) -> bool:
        """Withdraw a catalog's templates and forget it. False: there is none.

        Raises:
            BuiltInError: it comes with StreamSpace.
        """
        async with self._database.transaction() as session:
            row = await session.get(CatalogRow, id_, with_for_update=True)
            if row is None:
                return False
            if row.built_in:
                raise BuiltInError
            await self._withdraw(session, row, actor)
        return True

    async def request_sync(self, id_: CatalogId, actor: Actor) -> Catalog | None:
        """Make a catalog due. One that is being synced is synced once more afterwards."""
        statement = (
            update(CatalogRow)
            .where(col(CatalogRow.id) == id_)
            .values(
                state=CatalogState.SYNCING,
                requested_at=func.clock_timestamp(),
                requested_by=actor.model_dump(mode="json"),
                due_at=func.clock_timestamp(),
                version=CatalogRow.version + 1,
            )
            .returning(CatalogRow)
        )
        async with self._database.transaction() as session:
            row = (await session.execute(statement)).scalar_one_or_none()
            return row.to_contract() if row is not None else None

    async def keep_starter(self, *, wanted: bool, commit: str, rules: str) -> None:
        """Have the starter catalog, due if this version brings another one; or not have it."""
        actor = system_actor(SERVICE)
        async with self._database.transaction() as session:
            now = await self._database.now(session)
            row = await session.get(CatalogRow, STARTER, with_for_update=True)
            if row is None and wanted:
                new = NewCatalog(STARTER, "Starter", STARTER_URL, None, None)
                values = _new_values(new, now, actor, built_in=True)
                statement = insert(CatalogRow).values(values).on_conflict_do_nothing()
                added = (await session.execute(statement.returning(col(CatalogRow.id)))).scalar()
                if added is not None:
                    row = await session.get_one(CatalogRow, STARTER)
                    await _tell_added(session, row, now, actor)
            elif row is not None and not wanted:
                await self._withdraw(session, row, actor)
            elif row is not None and (row.commit, row.rules) != (commit, rules):
                row.due_at = now

    async def _withdraw(self, session: AsyncSession, row: CatalogRow, actor: Actor) -> None:
        now = await self._database.now(session)
        catalog = CatalogId(row.id)
        query = select(col(TemplateRow.id)).where(col(TemplateRow.catalog_id) == row.id)
        for id_ in (await session.execute(query.order_by(col(TemplateRow.id)))).scalars():
            event = TemplateWithdrawn(
                id=str(new_message_id()),
                at=now,
                actor=actor,
                template_id=TemplateId(id_),
                catalog_id=catalog,
            )
            await enqueue_event(session, event, source=SERVICE)
        removed = CatalogRemoved(id=str(new_message_id()), at=now, actor=actor, catalog_id=catalog)
        await enqueue_event(session, removed, source=SERVICE)
        await session.delete(row)


def _new_values(new: NewCatalog, now: datetime, actor: Actor, *, built_in: bool) -> dict[str, Any]:
    return {
        "id": new.id,
        "name": new.name,
        "url": new.url,
        "branch": new.branch,
        "origin": origin_key(new.url, new.branch),
        "sealed_token": new.sealed_token,
        "built_in": built_in,
        "state": CatalogState.SYNCING,
        "counts": {},
        "template_count": 0,
        "failures": 0,
        "version": 1,
        "created_at": now,
        "due_at": now,
        "requested_at": now,
        "requested_by": actor.model_dump(mode="json"),
    }


def origin_key(url: str, branch: str | None) -> str:
    """What is unique about where a catalog comes from; short enough for an index."""
    return hashlib.sha256(f"{url}\n{branch or ''}".encode()).hexdigest()


async def _tell_added(session: AsyncSession, row: CatalogRow, now: datetime, actor: Actor) -> None:
    event = CatalogAdded(
        id=str(new_message_id()),
        at=now,
        actor=actor,
        catalog_id=CatalogId(row.id),
        name=row.name,
        url=row.url,
    )
    await enqueue_event(session, event, source=SERVICE)
