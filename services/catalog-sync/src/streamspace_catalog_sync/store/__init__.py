"""PostgreSQL: catalogs, templates, reports, and the outbox that tells of them."""

from streamspace_catalog_sync.store.catalogs import CatalogStore
from streamspace_catalog_sync.store.syncs import SyncStore
from streamspace_catalog_sync.store.templates import TemplateStore

__all__ = ["CatalogStore", "SyncStore", "TemplateStore"]
