"""What catalog-sync is asked: templates, and the catalogs they come from."""

from pydantic import Field

from streamspace_common.contracts.base import Contract, Secret
from streamspace_common.contracts.catalog import Catalog, FileReport, Template, TemplateDetail
from streamspace_common.contracts.ids import CatalogIdText, TemplateIdText
from streamspace_common.contracts.requests.methods import AuthenticatedRequest, Empty, Method, Page


class ListTemplates(AuthenticatedRequest, Page):
    search: str | None = Field(default=None, max_length=255)
    category: str | None = Field(default=None, max_length=100)
    tag: str | None = Field(default=None, max_length=100)
    catalog_id: CatalogIdText | None = None


class TemplatePage(Contract):
    items: tuple[Template, ...]
    next_cursor: str | None = None
    total: int
    categories: dict[str, int] = Field(
        default_factory=dict, description="Category -> templates in it, of the whole catalog."
    )


class GetTemplate(AuthenticatedRequest):
    template_id: TemplateIdText


class ListCatalogs(AuthenticatedRequest):
    pass


class CatalogList(Contract):
    items: tuple[Catalog, ...]


class AddCatalog(AuthenticatedRequest):
    """A git repository by URL (https, ssh) or absolute local path."""

    name: str = Field(min_length=1, max_length=100)
    url: str = Field(min_length=1, max_length=2000)
    branch: str | None = Field(default=None, max_length=200)
    token: Secret | None = Field(
        default=None, max_length=1000, description="Sent as the password for https; never shown."
    )


class CatalogRequest(AuthenticatedRequest):
    catalog_id: CatalogIdText


class SyncReport(Contract):
    """By path; what would make it too large a message is left out, accepted files first."""

    catalog: Catalog
    files: tuple[FileReport, ...]
    omitted: int = Field(default=0, ge=0, description="How many files were left out.")


class CatalogMethods:
    LIST_TEMPLATES = Method("catalog", "list_templates", ListTemplates, TemplatePage)
    GET_TEMPLATE = Method("catalog", "get_template", GetTemplate, TemplateDetail)
    LIST_CATALOGS = Method("catalog", "list_catalogs", ListCatalogs, CatalogList)
    GET_CATALOG = Method("catalog", "get_catalog", CatalogRequest, Catalog)
    ADD_CATALOG = Method("catalog", "add_catalog", AddCatalog, Catalog)
    REMOVE_CATALOG = Method("catalog", "remove_catalog", CatalogRequest, Empty)
    SYNC_CATALOG = Method("catalog", "sync_catalog", CatalogRequest, Catalog)
    SYNC_REPORT = Method("catalog", "sync_report", CatalogRequest, SyncReport)
