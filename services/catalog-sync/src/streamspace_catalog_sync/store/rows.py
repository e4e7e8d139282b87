"""The tables of catalog-sync, and how rows become contracts."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, LargeBinary, MetaData, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from streamspace_catalog_sync.domain import Wanted
from streamspace_common.contracts.catalog import (
    Catalog,
    CatalogState,
    FileOutcome,
    FileReport,
    Protocol,
    ResourceAmounts,
    RuntimeKind,
    SyncCounts,
    Template,
    TemplateDetail,
)
from streamspace_common.contracts.ids import CatalogId, TemplateId


class CatalogModel(SQLModel):
    """Base of the tables below, so that their metadata is theirs alone."""

    metadata = MetaData()


def _time(*, nullable: bool = True) -> Any:
    return Column(DateTime(timezone=True), nullable=nullable)


class CatalogRow(CatalogModel, table=True):
    """A catalog, its last sync, and who is syncing it now.

    `due_at` says when the next sync may begin, `claim` and `claimed_until` who works on
    it: a claim that ran out is nobody's.
    """

    __tablename__ = "catalogs"
    id: str = Field(sa_column=Column(Text, primary_key=True))
    name: str = Field(sa_type=Text)
    url: str = Field(sa_type=Text)
    branch: str | None = Field(default=None, sa_type=Text)
    origin: str = Field(sa_type=Text)
    built_in: bool = False
    sealed_token: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    state: str = Field(sa_type=Text)
    commit: str | None = Field(default=None, sa_type=Text)
    rules: str | None = Field(default=None, sa_type=Text)
    template_count: int = 0
    counts: dict[str, int] = Field(sa_column=Column(JSONB, nullable=False))
    error: str | None = Field(default=None, sa_type=Text)
    failures: int = 0
    created_at: datetime = Field(sa_column=_time(nullable=False))
    last_sync_at: datetime | None = Field(default=None, sa_column=_time())
    version: int = Field(default=1, sa_type=BigInteger)
    requested_by: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB))
    requested_at: datetime | None = Field(default=None, sa_column=_time())
    due_at: datetime = Field(sa_column=_time(nullable=False))
    claim: str | None = Field(default=None, sa_type=Text)
    claimed_at: datetime | None = Field(default=None, sa_column=_time())
    claimed_until: datetime | None = Field(default=None, sa_column=_time())

    def to_contract(self) -> Catalog:
        return Catalog(
            id=CatalogId(self.id),
            name=self.name,
            url=self.url,
            branch=self.branch,
            built_in=self.built_in,
            state=CatalogState(self.state),
            commit=self.commit,
            template_count=self.template_count,
            counts=SyncCounts.model_validate(self.counts),
            error=self.error,
            last_sync_at=self.last_sync_at,
            created_at=self.created_at,
            version=self.version,
        )


class TemplateRow(CatalogModel, table=True):
    """A published template, with what searching it needs."""

    __tablename__ = "templates"
    id: str = Field(sa_column=Column(Text, primary_key=True))
    catalog_id: str = Field(
        sa_column=Column(Text, ForeignKey("catalogs.id", ondelete="CASCADE"), nullable=False)
    )
    sort_name: str = Field(sa_column=Column(Text(collation="C"), nullable=False))
    searched: str = Field(sa_type=Text)
    categories: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    category_keys: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    tag_keys: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    path: str = Field(sa_type=Text)
    commit: str | None = Field(default=None, sa_type=Text)
    digest: str = Field(sa_type=Text)
    unusable: str | None = Field(default=None, sa_type=Text)
    summary: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    """The template as lists show it, but for what the other columns hold."""
    manifest: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    updated_at: datetime = Field(sa_column=_time(nullable=False))
    published_at: datetime = Field(sa_column=_time(nullable=False))


class FileReportRow(CatalogModel, table=True):
    """What the last sync made of one file."""

    __tablename__ = "file_reports"
    catalog_id: str = Field(
        sa_column=Column(Text, ForeignKey("catalogs.id", ondelete="CASCADE"), primary_key=True)
    )
    position: int = Field(primary_key=True)
    path: str = Field(sa_type=Text)
    outcome: str = Field(sa_type=Text)
    template_id: str | None = Field(default=None, sa_type=Text)
    reasons: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))

    def to_contract(self) -> FileReport:
        return FileReport(
            path=self.path,
            outcome=FileOutcome(self.outcome),
            template_id=TemplateId(self.template_id) if self.template_id else None,
            reasons=tuple(self.reasons),
        )


def template_values(
    catalog: CatalogId, wanted: Wanted, commit: str, now: datetime
) -> dict[str, Any]:
    """The columns of a template that is published now."""
    manifest = wanted.template.manifest
    spec = manifest.spec
    searched = (manifest.metadata.name, spec.display_name, spec.description)
    return {
        "id": wanted.id,
        "catalog_id": catalog,
        "sort_name": spec.display_name.casefold(),
        "searched": "\n".join((*searched, *spec.tags, *spec.categories)).casefold(),
        "categories": list(spec.categories),
        "category_keys": [category.casefold() for category in spec.categories],
        "tag_keys": [tag.casefold() for tag in spec.tags],
        "path": wanted.path,
        "commit": commit,
        "digest": wanted.template.digest,
        "unusable": wanted.template.unusable,
        "summary": {
            "name": manifest.metadata.name,
            "displayName": spec.display_name,
            "description": spec.description,
            "tags": list(spec.tags),
            "icon": spec.icon,
            "protocol": spec.connection.protocol if spec.connection else None,
            "runtimes": sorted(manifest.runtimes - {RuntimeKind.NULL}),
            "defaultResources": spec.default_resources.model_dump(mode="json"),
            "capabilities": list(spec.capabilities),
        },
        "manifest": wanted.template.document,
        "updated_at": now,
        "published_at": now,
    }


SUMMARY_COLUMNS = (
    "id",
    "catalog_id",
    "categories",
    "path",
    "commit",
    "digest",
    "unusable",
    "summary",
    "updated_at",
    "sort_name",
)


def to_template(row: Any) -> Template:
    """A listed template of a row with `SUMMARY_COLUMNS`."""
    return Template(**_template_fields(row))


def to_template_detail(row: Any) -> TemplateDetail:
    return TemplateDetail(**_template_fields(row), manifest=row.manifest)


def _template_fields(row: Any) -> dict[str, Any]:
    summary = row.summary
    return {
        "id": TemplateId(row.id),
        "catalog_id": CatalogId(row.catalog_id),
        "name": summary["name"],
        "display_name": summary["displayName"],
        "description": summary["description"],
        "categories": tuple(row.categories),
        "tags": tuple(summary["tags"]),
        "icon": summary["icon"],
        "protocol": Protocol(summary["protocol"]) if summary["protocol"] else None,
        "runtimes": tuple(RuntimeKind(kind) for kind in summary["runtimes"]),
        "default_resources": ResourceAmounts.model_validate(summary["defaultResources"]),
        "capabilities": tuple(summary["capabilities"]),
        "digest": row.digest,
        "path": row.path,
        "commit": row.commit,
        "unusable": row.unusable,
        "updated_at": row.updated_at,
    }
