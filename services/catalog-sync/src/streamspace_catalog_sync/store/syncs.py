"""Syncs in the database: who may sync what, and one transaction for what came of it.

A claim is a lease in the catalog's row, not a lock held by a connection: reading a
repository takes minutes, and no transaction may stay open that long. Whoever
finishes locks the row, finds its own claim in it or gives up, and then writes
templates, report, state and events together. A replica that dies leaves a lease
that runs out, so no catalog stays `syncing`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Text, bindparam, delete, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_catalog_sync.domain import Changes, Stored
from streamspace_catalog_sync.plan import Resolved, count, plan
from streamspace_catalog_sync.ports import Claim, SyncResult
from streamspace_catalog_sync.store.catalogs import SERVICE
from streamspace_catalog_sync.store.rows import (
    CatalogRow,
    FileReportRow,
    TemplateRow,
    template_values,
)
from streamspace_common.contracts.catalog import CatalogState, TemplateManifest
from streamspace_common.contracts.events import (
    CatalogSynced,
    CatalogSyncFailed,
    TemplatePublished,
    TemplateWithdrawn,
)
from streamspace_common.contracts.identity import Actor, system_actor
from streamspace_common.contracts.ids import CatalogId, TemplateId, new_message_id
from streamspace_common.store.engine import Database
from streamspace_common.store.outbox import enqueue_event

_FIRST_RETRY: Final = timedelta(minutes=1)
_ROWS_AT_ONCE: Final = 500

_CLAIM: Final = text("""
UPDATE catalogs SET claim = :claim, state = 'syncing', version = version + 1,
    claimed_at = clock_timestamp(), claimed_until = clock_timestamp() + :lease
WHERE id = (
    SELECT id FROM catalogs
    WHERE due_at <= clock_timestamp()
      AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())
    ORDER BY due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, url, branch, built_in, sealed_token, commit, rules, requested_at, last_sync_at
""")
_NEXT_DUE: Final = text("""
SELECT min(greatest(due_at, coalesce(claimed_until, due_at))) - clock_timestamp() FROM catalogs
""")


class SyncStore:
    """Implements `ports.Syncs`.

    Args:
        database: of this service.
        interval: from the end of a sync to the next one.
        rules: digest of the rules manifests are read by; others make all catalogs unread.
    """

    def __init__(self, database: Database, *, interval: timedelta, rules: str) -> None:
        self._database = database
        self._interval = interval
        self._rules = rules

    async def claim(self, lease: timedelta) -> Claim | None:
        """The catalog that has been due for longest, for `lease`; None: nothing is due."""
        id_ = uuid4().hex
        async with self._database.transaction() as session:
            row = (await session.execute(_CLAIM, {"claim": id_, "lease": lease})).one_or_none()
        if row is None:
            return None
        return Claim(
            id=id_,
            catalog=CatalogId(row.id),
            url=row.url,
            branch=row.branch,
            built_in=row.built_in,
            sealed_token=row.sealed_token,
            known_commit=row.commit if row.rules == self._rules else None,
            on_demand=row.requested_at is not None,
        )

    async def finish(self, claim: Claim, commit: str, resolved: Resolved) -> SyncResult:
        """Make the catalog's templates those of `resolved`, and tell what changed."""
        async with self._database.transaction() as session:
            row = await self._own(session, claim)
            if row is None:
                return SyncResult.LOST
            now = await self._database.now(session)
            changes = plan(resolved.wanted, await _stored(session, row.id))
            await self._write(session, row, changes, commit, now)
            await _write_reports(session, row.id, resolved)
            counts = count(resolved.reports, removed=len(changes.withdraw))
            actor = _actor(row)
            await self._tell(session, row, changes, now, actor)
            if not changes.is_empty or row.commit != commit or row.error is not None:
                synced = CatalogSynced(
                    id=str(new_message_id()),
                    at=now,
                    actor=actor,
                    catalog_id=CatalogId(row.id),
                    commit=commit,
                    counts=counts,
                )
                await enqueue_event(session, synced, source=SERVICE)
            row.commit, row.rules = commit, self._rules
            row.counts = counts.model_dump(mode="json")
            row.template_count = len(resolved.wanted)
            self._close(row, now, CatalogState.SYNCED, error=None)
        return SyncResult.UNCHANGED if changes.is_empty else SyncResult.CHANGED

    async def unchanged(self, claim: Claim) -> SyncResult:
        """The source is at the commit that is stored."""
        async with self._database.transaction() as session:
            row = await self._own(session, claim)
            if row is None:
                return SyncResult.LOST
            now = await self._database.now(session)
            self._close(row, now, CatalogState.SYNCED, error=None)
        return SyncResult.UNCHANGED

    async def fail(self, claim: Claim, error: str) -> SyncResult:
        """Nothing could be read: templates stay as they are, and it is tried again."""
        async with self._database.transaction() as session:
            row = await self._own(session, claim)
            if row is None:
                return SyncResult.LOST
            now = await self._database.now(session)
            if row.error != error or claim.on_demand:
                failed = CatalogSyncFailed(
                    id=str(new_message_id()),
                    at=now,
                    actor=_actor(row),
                    catalog_id=CatalogId(row.id),
                    error=error,
                )
                await enqueue_event(session, failed, source=SERVICE)
            self._close(row, now, CatalogState.FAILED, error=error)
        return SyncResult.FAILED

    async def release(self, claim: Claim) -> None:
        """Give a catalog back undone; it stays due."""
        statement = (
            update(CatalogRow)
            .where(col(CatalogRow.id) == claim.catalog, col(CatalogRow.claim) == claim.id)
            .values(claim=None, claimed_until=None)
        )
        async with self._database.transaction() as session:
            await session.execute(statement)

    async def next_due(self) -> timedelta | None:
        """How long until something can be claimed, negative when it can be already."""
        async with self._database.transaction() as session:
            due: timedelta | None = (await session.execute(_NEXT_DUE)).scalar()
        return due

    async def addresses(self) -> Sequence[tuple[CatalogId, str]]:
        query = select(col(CatalogRow.id), col(CatalogRow.url)).where(~col(CatalogRow.built_in))
        async with self._database.transaction() as session:
            rows = (await session.execute(query)).all()
        return [(CatalogId(id_), url) for id_, url in rows]

    async def republish(self, older_than: timedelta, *, limit: int) -> int:
        """Publish templates again whose last event is older; returns how many."""
        query = (
            select(TemplateRow)
            .where(col(TemplateRow.published_at) < func.clock_timestamp() - older_than)
            .order_by(col(TemplateRow.id))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        actor = system_actor(SERVICE)
        async with self._database.transaction() as session:
            now = await self._database.now(session)
            rows = (await session.execute(query)).scalars().all()
            for row in rows:
                manifest = TemplateManifest.model_validate(row.manifest)
                event = _published(
                    TemplateId(row.id), CatalogId(row.catalog_id), manifest, row, now, actor
                )
                await enqueue_event(session, event, source=SERVICE)
                row.published_at = now
        return len(rows)

    @staticmethod
    async def _own(session: AsyncSession, claim: Claim) -> CatalogRow | None:
        """The catalog's row, locked, if it still bears this claim."""
        query = (
            select(CatalogRow)
            .where(col(CatalogRow.id) == claim.catalog, col(CatalogRow.claim) == claim.id)
            .with_for_update()
        )
        return (await session.execute(query)).scalar_one_or_none()

    def _close(
        self, row: CatalogRow, now: datetime, state: CatalogState, *, error: str | None
    ) -> None:
        requested = row.requested_at
        again = bool(requested and row.claimed_at and requested > row.claimed_at)
        row.state = CatalogState.SYNCING if again else state
        row.error = error
        row.failures = row.failures + 1 if error else 0
        row.last_sync_at = now
        wait = self._interval
        if error:
            wait = min(wait, _FIRST_RETRY * 2.0 ** min(row.failures - 1, 20))
        row.due_at = now if again else now + wait
        if not again:
            row.requested_at = row.requested_by = None
        row.claim = row.claimed_at = row.claimed_until = None
        row.version += 1

    @staticmethod
    async def _write(
        session: AsyncSession, row: CatalogRow, changes: Changes, commit: str, now: datetime
    ) -> None:
        catalog = CatalogId(row.id)
        values = [template_values(catalog, wanted, commit, now) for wanted in changes.publish]
        for chunk in _chunks(values):
            statement = upsert(TemplateRow)
            columns = {name: statement.excluded[name] for name in chunk[0] if name != "id"}
            await session.execute(
                statement.on_conflict_do_update(index_elements=["id"], set_=columns), chunk
            )
        for wanted in changes.moved:
            await session.execute(
                update(TemplateRow).where(col(TemplateRow.id) == wanted.id).values(path=wanted.path)
            )
        if changes.withdraw:
            gone = bindparam("gone", list(changes.withdraw), type_=ARRAY(Text))
            await session.execute(
                delete(TemplateRow).where(
                    col(TemplateRow.catalog_id) == catalog,
                    or_(col(TemplateRow.id) == func.any(gone)),
                )
            )

    @staticmethod
    async def _tell(
        session: AsyncSession, row: CatalogRow, changes: Changes, now: datetime, actor: Actor
    ) -> None:
        catalog = CatalogId(row.id)
        for wanted in changes.publish:
            event = _published(
                wanted.id, catalog, wanted.template.manifest, wanted.template, now, actor
            )
            await enqueue_event(session, event, source=SERVICE)
        for id_ in changes.withdraw:
            withdrawn = TemplateWithdrawn(
                id=str(new_message_id()),
                at=now,
                actor=actor,
                template_id=id_,
                catalog_id=catalog,
            )
            await enqueue_event(session, withdrawn, source=SERVICE)


def _published(
    id_: TemplateId,
    catalog: CatalogId,
    manifest: TemplateManifest,
    facts: Any,
    now: datetime,
    actor: Actor,
) -> TemplatePublished:
    return TemplatePublished(
        id=str(new_message_id()),
        at=now,
        actor=actor,
        template_id=id_,
        catalog_id=catalog,
        name=manifest.metadata.name,
        digest=facts.digest,
        manifest=manifest,
        unusable=facts.unusable,
    )


async def _stored(session: AsyncSession, catalog: str) -> list[Stored]:
    query = select(
        col(TemplateRow.id),
        col(TemplateRow.digest),
        col(TemplateRow.path),
        col(TemplateRow.unusable),
    ).where(col(TemplateRow.catalog_id) == catalog)
    rows = (await session.execute(query)).all()
    return [Stored(TemplateId(id_), digest, path, why) for id_, digest, path, why in rows]


async def _write_reports(session: AsyncSession, catalog: str, resolved: Resolved) -> None:
    await session.execute(delete(FileReportRow).where(col(FileReportRow.catalog_id) == catalog))
    values = [
        {
            "catalog_id": catalog,
            "position": position,
            "path": report.path,
            "outcome": report.outcome,
            "template_id": report.template_id,
            "reasons": list(report.reasons),
        }
        for position, report in enumerate(resolved.reports)
    ]
    for chunk in _chunks(values):
        await session.execute(insert(FileReportRow), chunk)


def _chunks(values: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [values[start : start + _ROWS_AT_ONCE] for start in range(0, len(values), _ROWS_AT_ONCE)]


def _actor(row: CatalogRow) -> Actor:
    """Who asked for this sync; the service itself when nobody did."""
    if row.requested_by is None:
        return system_actor(SERVICE)
    return Actor.model_validate(row.requested_by)
