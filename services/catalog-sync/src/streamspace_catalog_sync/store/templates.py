"""Searching templates: filters, pages by key, and the counts of categories."""

from typing import Any, Final

from sqlalchemy import ColumnElement, String, bindparam, func, select, tuple_
from sqlmodel import col

from streamspace_catalog_sync.store.rows import (
    SUMMARY_COLUMNS,
    TemplateRow,
    to_template,
    to_template_detail,
)
from streamspace_common.contracts.catalog import Template, TemplateDetail
from streamspace_common.contracts.cursors import cursor_of, words_of
from streamspace_common.contracts.ids import CatalogId, TemplateId
from streamspace_common.contracts.requests import ListTemplates, TemplatePage
from streamspace_common.store.engine import Database

PAGE_BYTES: Final = 700_000
"""A page is cut here: a reply on the bus may be 1 MiB, and descriptions are long."""
_MOST_WORDS: Final = 10


class TemplateStore:
    """Implements `ports.Templates`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def search(self, request: ListTemplates) -> TemplatePage:
        """A page in the order of display names.

        Raises:
            ProblemError: `invalid-request` for a cursor that is not one of ours.
        """
        filters = _filters(request)
        after = words_of(request.cursor, 2) if request.cursor is not None else None
        columns = [getattr(TemplateRow, name) for name in SUMMARY_COLUMNS]
        key = tuple_(col(TemplateRow.sort_name), col(TemplateRow.id))
        page = select(*columns).where(*filters).order_by(key).limit(request.limit + 1)
        if after is not None:
            page = page.where(key > tuple_(*after))
        total = select(func.count()).select_from(TemplateRow).where(*filters)
        async with self._database.transaction() as session:
            rows = (await session.execute(page)).all()
            number = (await session.execute(total)).scalar_one()
            categories = (await session.execute(_category_counts(request.catalog_id))).all()
        items = _fitting([to_template(row) for row in rows[: request.limit]])
        more = len(items) < len(rows)
        return TemplatePage(
            items=tuple(items),
            next_cursor=_cursor(rows[len(items) - 1]) if more else None,
            total=number,
            categories={row.name: row.templates for row in categories},
        )

    async def get(self, id_: TemplateId) -> TemplateDetail | None:
        """One template with its manifest."""
        async with self._database.transaction() as session:
            row = await session.get(TemplateRow, id_)
        return to_template_detail(row) if row is not None else None


def _filters(request: ListTemplates) -> list[ColumnElement[bool]]:
    words = (request.search or "").casefold().split()[:_MOST_WORDS]
    filters: list[ColumnElement[bool]] = [
        col(TemplateRow.searched).like(f"%{escape_like(word)}%", escape="\\") for word in words
    ]
    if request.category is not None:
        filters.append(_holds(TemplateRow.category_keys, request.category))
    if request.tag is not None:
        filters.append(_holds(TemplateRow.tag_keys, request.tag))
    if request.catalog_id is not None:
        filters.append(col(TemplateRow.catalog_id) == request.catalog_id)
    return filters


def _holds(column: Any, text: str) -> ColumnElement[bool]:
    key = " ".join(_storable(text).casefold().split())
    held: ColumnElement[bool] = bindparam(None, key, type_=String) == func.any(column)
    return held


def _category_counts(catalog: CatalogId | None) -> Any:
    name = func.unnest(TemplateRow.categories).label("name")
    names = select(name)
    if catalog is not None:
        names = names.where(col(TemplateRow.catalog_id) == catalog)
    each = names.subquery()
    return (
        select(each.c.name, func.count().label("templates"))
        .group_by(each.c.name)
        .order_by(each.c.name)
    )


def escape_like(text: str) -> str:
    """The text so that LIKE finds it and nothing else."""
    text = _storable(text).replace("\\", "\\\\")
    return text.replace("%", "\\%").replace("_", "\\_")


def _storable(text: str) -> str:
    """PostgreSQL has no NUL and no lone surrogates, so nothing stored can match them."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _fitting(items: list[Template]) -> list[Template]:
    size = 0
    for number, item in enumerate(items):
        size += len(item.to_json())
        if size > PAGE_BYTES and number:
            return items[:number]
    return items


def _cursor(row: Any) -> str:
    return cursor_of(row.sort_name, row.id)
