"""The methods of `svc.catalog.*`.

Everybody who is signed in may look; operators and admins add, remove and sync.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from streamspace_catalog_sync.addresses import (
    AddressError,
    AddressRules,
    Transport,
    check_branch,
    parse_address,
)
from streamspace_catalog_sync.manifest.prose import has_control_characters
from streamspace_catalog_sync.ports import (
    BuiltInError,
    CatalogExistsError,
    Catalogs,
    NewCatalog,
    SealError,
    Templates,
    Vault,
)
from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.catalog import Catalog, FileOutcome, FileReport, TemplateDetail
from streamspace_common.contracts.identity import Actor, Role, user_actor
from streamspace_common.contracts.ids import CatalogId, slug
from streamspace_common.contracts.problems import Code, FieldProblem, ProblemError
from streamspace_common.contracts.requests import (
    AddCatalog,
    AuthenticatedRequest,
    CatalogList,
    CatalogMethods,
    CatalogRequest,
    Empty,
    GetTemplate,
    ListCatalogs,
    ListTemplates,
    Method,
    SyncReport,
    TemplatePage,
)

_MANAGERS: Final = frozenset({Role.OPERATOR, Role.ADMIN})
_REPORT_BYTES: Final = 700_000
"""A reply on the bus may be 1 MiB."""
_LEAST_WANTED: Final = (FileOutcome.ACCEPTED, FileOutcome.SKIPPED, FileOutcome.CORRECTED)


class CatalogHandlers:
    """Answers requests about templates and catalogs.

    Args:
        templates: what is published.
        catalogs: where it comes from.
        vault: seals tokens before they are stored.
        rules: which addresses are allowed.
        wake: called when a catalog has become due.
    """

    def __init__(
        self,
        templates: Templates,
        catalogs: Catalogs,
        *,
        vault: Vault,
        rules: AddressRules,
        wake: Callable[[], None],
    ) -> None:
        self._templates = templates
        self._catalogs = catalogs
        self._vault = vault
        self._rules = rules
        self._wake = wake

    def methods(self) -> Mapping[Method[Any, Any], Callable[[Any], Awaitable[Contract]]]:
        """Every method of `CatalogMethods`, for `Bus.serve`."""
        return {
            CatalogMethods.LIST_TEMPLATES: self.list_templates,
            CatalogMethods.GET_TEMPLATE: self.get_template,
            CatalogMethods.LIST_CATALOGS: self.list_catalogs,
            CatalogMethods.GET_CATALOG: self.get_catalog,
            CatalogMethods.ADD_CATALOG: self.add_catalog,
            CatalogMethods.REMOVE_CATALOG: self.remove_catalog,
            CatalogMethods.SYNC_CATALOG: self.sync_catalog,
            CatalogMethods.SYNC_REPORT: self.sync_report,
        }

    async def list_templates(self, request: ListTemplates) -> TemplatePage:
        return await self._templates.search(request)

    async def get_template(self, request: GetTemplate) -> TemplateDetail:
        template = await self._templates.get(request.template_id)
        if template is None:
            raise ProblemError.of(Code.NOT_FOUND, f"There is no template {request.template_id}.")
        return template

    async def list_catalogs(self, request: ListCatalogs) -> CatalogList:
        return CatalogList(items=tuple(await self._catalogs.list()))

    async def get_catalog(self, request: CatalogRequest) -> Catalog:
        return _found(await self._catalogs.get(request.catalog_id), request.catalog_id)

    async def add_catalog(self, request: AddCatalog) -> Catalog:
        """Store the catalog and answer at once; reading it goes on in the background."""
        actor = _manager(request)
        new = self._new_catalog(request)
        try:
            catalog = await self._catalogs.add(new, actor)
        except CatalogExistsError as error:
            raise ProblemError.of(
                Code.ALREADY_EXISTS,
                f"There is a catalog {new.id} already, or one of this repository and branch.",
            ) from error
        self._wake()
        return catalog

    async def remove_catalog(self, request: CatalogRequest) -> Empty:
        """Withdraw its templates; sessions that run keep the manifest they started from."""
        actor = _manager(request)
        try:
            removed = await self._catalogs.remove(request.catalog_id, actor)
        except BuiltInError as error:
            raise ProblemError.of(
                Code.WRONG_STATE,
                "The starter catalog comes with StreamSpace. To be without it, set "
                "STREAMSPACE_CATALOG_SYNC_STARTER=false.",
            ) from error
        if not removed:
            raise _unknown(request.catalog_id)
        self._wake()
        return Empty()

    async def sync_catalog(self, request: CatalogRequest) -> Catalog:
        """Answers at once with state `syncing`."""
        actor = _manager(request)
        catalog = await self._catalogs.request_sync(request.catalog_id, actor)
        self._wake()
        return _found(catalog, request.catalog_id)

    async def sync_report(self, request: CatalogRequest) -> SyncReport:
        report = await self._catalogs.report(request.catalog_id)
        if report is None:
            raise _unknown(request.catalog_id)
        catalog, files = report
        kept = fitting(files, _REPORT_BYTES)
        return SyncReport(catalog=catalog, files=tuple(kept), omitted=len(files) - len(kept))

    def _new_catalog(self, request: AddCatalog) -> NewCatalog:
        name = " ".join(request.name.split())
        if not name or has_control_characters(name):
            raise _invalid("name", "The name is empty or holds control characters.")
        id_ = catalog_id(name)
        try:
            address = parse_address(request.url, self._rules)
        except AddressError as error:
            raise _invalid("url", str(error)) from error
        try:
            branch = check_branch(request.branch) if request.branch is not None else None
        except AddressError as error:
            raise _invalid("branch", str(error)) from error
        if request.token is None:
            return NewCatalog(id_, name, address.url, branch, None)
        if address.transport is not Transport.HTTP:
            raise _invalid("token", "A token is used with https addresses only.")
        try:
            sealed = self._vault.seal(id_, request.token)
        except SealError as error:
            raise _invalid("token", str(error)) from error
        return NewCatalog(id_, name, address.url, branch, sealed)


def catalog_id(name: str) -> CatalogId:
    """A catalog's id: its name in lower case with dashes, where that says it all.

    `Lab Images` is `lab-images`; a name with other characters gets a digest too, so
    that no two names share an id by accident.
    """
    return CatalogId(slug(name.lower().replace(" ", "-"), 40))


def fitting(files: Sequence[FileReport], most: int) -> Sequence[FileReport]:
    """The files whose report fits into `most` bytes: refused ones go last, accepted first."""
    sizes = {id(file): len(file.to_json()) + 1 for file in files}
    total = sum(sizes.values())
    dropped: set[int] = set()
    for outcome in (*_LEAST_WANTED, FileOutcome.REFUSED):
        for file in reversed(files):
            if total <= most:
                return [kept for kept in files if id(kept) not in dropped]
            if file.outcome is outcome:
                dropped.add(id(file))
                total -= sizes[id(file)]
    return []


def _manager(request: AuthenticatedRequest) -> Actor:
    """The actor of a request that only operators and admins may make."""
    if request.principal.role not in _MANAGERS:
        raise ProblemError.of(Code.FORBIDDEN, "Only operators and admins change catalogs.")
    return user_actor(request.principal, request.address)


def _found(catalog: Catalog | None, id_: CatalogId) -> Catalog:
    if catalog is None:
        raise _unknown(id_)
    return catalog


def _unknown(id_: CatalogId) -> ProblemError:
    return ProblemError.of(Code.NOT_FOUND, f"There is no catalog {id_}.")


def _invalid(field: str, detail: str) -> ProblemError:
    return ProblemError.of(
        Code.INVALID_REQUEST, detail, errors=(FieldProblem(pointer=f"/{field}", detail=detail),)
    )
