"""The projection of the catalogs in PostgreSQL, with parsed manifests kept at hand."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from streamspace_common.contracts.catalog import TemplateManifest
from streamspace_common.contracts.events import TemplatePublished, TemplateWithdrawn
from streamspace_common.contracts.ids import TemplateId
from streamspace_session.ports import TemplateRecord
from streamspace_session.store.tables import ManifestRow, TemplateRow

_TEMPLATES = TemplateRow.__table__  # type: ignore[attr-defined]
_MANIFESTS = ManifestRow.__table__  # type: ignore[attr-defined]


_FIND = text(
    """
    SELECT id, name, digest, unusable, clock_timestamp() AS read_at FROM templates
    WHERE (id = :text OR name = :text) AND NOT withdrawn ORDER BY id
    """
)


class ManifestCache:
    """Manifests by template and digest. A digest never gets another manifest."""

    def __init__(self, size: int = 512) -> None:
        self._size = size
        self._known: OrderedDict[tuple[str, str], TemplateManifest] = OrderedDict()

    def get(self, template: str, digest: str) -> TemplateManifest | None:
        found = self._known.get((template, digest))
        if found is not None:
            self._known.move_to_end((template, digest))
        return found

    def keep(self, template: str, digest: str, manifest: TemplateManifest) -> None:
        self._known[template, digest] = manifest
        while len(self._known) > self._size:
            self._known.popitem(last=False)


class SqlTemplates:
    """`ports.Templates` inside one transaction."""

    def __init__(
        self,
        connection: AsyncConnection,
        cache: ManifestCache,
        see_time: Callable[[datetime], None],
    ) -> None:
        self._connection = connection
        self._cache = cache
        self._see_time = see_time

    async def find(self, text_: str) -> list[TemplateRecord]:
        rows = (await self._connection.execute(_FIND, {"text": text_})).all()
        if rows:
            self._see_time(rows[0].read_at)
        exact = [row for row in rows if row.id == text_]
        return [
            TemplateRecord(
                id=TemplateId(row.id),
                name=row.name,
                digest=row.digest,
                unusable=row.unusable,
                manifest=await self.manifest(TemplateId(row.id), row.digest),
            )
            for row in exact or rows
        ]

    async def manifest(self, template: TemplateId, digest: str) -> TemplateManifest:
        known = self._cache.get(template, digest)
        if known is not None:
            return known
        found = await self._connection.execute(
            select(_MANIFESTS.c.manifest).where(
                _MANIFESTS.c.template_id == template, _MANIFESTS.c.digest == digest
            )
        )
        manifest = TemplateManifest.model_validate(found.scalar_one())
        self._cache.keep(template, digest, manifest)
        return manifest

    async def kept(self, template: TemplateId, digest: str) -> bool:
        found = await self._connection.execute(
            select(_MANIFESTS.c.digest).where(
                _MANIFESTS.c.template_id == template, _MANIFESTS.c.digest == digest
            )
        )
        return found.one_or_none() is not None

    async def publish(self, event: TemplatePublished, sequence: int, unusable: str | None) -> None:
        await self._connection.execute(
            upsert(_MANIFESTS)
            .values(
                template_id=event.template_id,
                digest=event.digest,
                manifest=event.manifest.model_dump(mode="json"),
            )
            .on_conflict_do_nothing()
        )
        statement = upsert(_TEMPLATES).values(
            id=event.template_id,
            catalog_id=event.catalog_id,
            name=event.name,
            digest=event.digest,
            unusable=unusable,
            withdrawn=False,
            sequence=sequence,
        )
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[_TEMPLATES.c.id],
                set_={
                    name: getattr(statement.excluded, name)
                    for name in (
                        "catalog_id",
                        "name",
                        "digest",
                        "unusable",
                        "withdrawn",
                        "sequence",
                    )
                },
                where=_TEMPLATES.c.sequence < statement.excluded.sequence,
            )
        )

    async def withdraw(self, event: TemplateWithdrawn, sequence: int) -> None:
        await self._connection.execute(
            update(_TEMPLATES)
            .where(_TEMPLATES.c.id == event.template_id, _TEMPLATES.c.sequence < sequence)
            .values(withdrawn=True, sequence=sequence)
        )
