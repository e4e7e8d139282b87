"""What handlers and the syncer need of the outside, as protocols."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from pydantic import SecretStr

from streamspace_catalog_sync.addresses import Address
from streamspace_catalog_sync.domain import Snapshot, Unchanged
from streamspace_catalog_sync.plan import Resolved
from streamspace_common.contracts.catalog import Catalog, FileReport, TemplateDetail
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import CatalogId, TemplateId
from streamspace_common.contracts.requests import ListTemplates, TemplatePage


class CatalogExistsError(Exception):
    """A catalog of this name, or of this repository and branch, is there already."""


class BuiltInError(Exception):
    """The catalog comes with StreamSpace and cannot be removed."""


class SealError(Exception):
    """A token cannot be sealed or opened; the message says which setting is wrong."""


@dataclass(frozen=True)
class NewCatalog:
    id: CatalogId
    name: str
    url: str
    branch: str | None
    sealed_token: bytes | None


@dataclass(frozen=True)
class Claim:
    """The right to sync one catalog for a while, and what is needed to do it.

    Whoever lets the lease run out loses the claim: another replica takes it, and
    nothing that is written under the old one is kept.
    """

    id: str
    catalog: CatalogId
    url: str
    branch: str | None
    built_in: bool
    sealed_token: bytes | None
    known_commit: str | None
    """The commit that was read last under the same rules; None when all must be read."""
    on_demand: bool


class SyncResult(StrEnum):
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    LOST = "lost"
    """The claim ran out, or the catalog was removed meanwhile; nothing was written."""


class Templates(Protocol):
    """Reading what is published."""

    async def search(self, request: ListTemplates) -> TemplatePage:
        """One page; raises `ProblemError` for a cursor that is not one of ours."""
        ...

    async def get(self, id_: TemplateId) -> TemplateDetail | None: ...


class Catalogs(Protocol):
    """Catalogs as operators see them. Each method is one transaction."""

    async def list(self) -> Sequence[Catalog]: ...

    async def get(self, id_: CatalogId) -> Catalog | None: ...

    async def report(self, id_: CatalogId) -> tuple[Catalog, Sequence[FileReport]] | None: ...

    async def add(self, new: NewCatalog, actor: Actor) -> Catalog:
        """Store it, due at once; raises `CatalogExistsError`."""
        ...

    async def remove(self, id_: CatalogId, actor: Actor) -> bool:
        """Withdraw its templates and forget it; raises `BuiltInError`. False: unknown."""
        ...

    async def request_sync(self, id_: CatalogId, actor: Actor) -> Catalog | None:
        """Make it due at once; None: unknown."""
        ...


class Syncs(Protocol):
    """The syncer's side: claims, and what came of them."""

    async def claim(self, lease: timedelta) -> Claim | None:
        """The next catalog that is due and that nobody works on."""
        ...

    async def finish(self, claim: Claim, commit: str, resolved: Resolved) -> SyncResult: ...

    async def unchanged(self, claim: Claim) -> SyncResult: ...

    async def fail(self, claim: Claim, error: str) -> SyncResult: ...

    async def release(self, claim: Claim) -> None:
        """Give it back undone, to be taken by anybody."""
        ...

    async def next_due(self) -> timedelta | None:
        """How long until something can be claimed; None: there are no catalogs."""
        ...

    async def addresses(self) -> Sequence[tuple[CatalogId, str]]:
        """Ids and URLs of all catalogs that are fetched from somewhere."""
        ...


class Source(Protocol):
    async def read(
        self,
        catalog: CatalogId,
        address: Address,
        *,
        branch: str | None,
        token: SecretStr | None,
        known_commit: str | None,
    ) -> Snapshot | Unchanged:
        """The files at the newest commit; raises `SourceError`."""
        ...

    async def forget_all_but(self, catalogs: Collection[tuple[CatalogId, Address]]) -> None: ...


class Vault(Protocol):
    """Keeps tokens unreadable in the database; both raise `SealError`."""

    def seal(self, catalog: CatalogId, token: SecretStr) -> bytes: ...

    def open(self, catalog: CatalogId, sealed: bytes) -> SecretStr: ...
