"""Templates and the catalogs they come from."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from streamspace_common.contracts.catalog import Catalog, TemplateDetail
from streamspace_common.contracts.ids import CatalogIdText, TemplateIdText
from streamspace_common.contracts.requests import (
    AddCatalog,
    CatalogList,
    CatalogMethods,
    CatalogRequest,
    GetTemplate,
    ListCatalogs,
    ListTemplates,
    SyncReport,
    TemplatePage,
)
from streamspace_gateway.deps import ClientAddress, CurrentUser, OperatorOnly, StateDep, etag
from streamspace_gateway.routes.answers import problems
from streamspace_gateway.routes.bodies import AddCatalogBody

router = APIRouter()


@router.get("/templates", tags=["templates"], responses=problems(401))
async def list_templates(
    user: CurrentUser,
    state: StateDep,
    search: Annotated[str | None, Query(max_length=255)] = None,
    category: Annotated[str | None, Query(max_length=100)] = None,
    tag: Annotated[str | None, Query(max_length=100)] = None,
    catalog_id: Annotated[CatalogIdText | None, Query(alias="catalogId")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> TemplatePage:
    """What can be launched, searched and filtered."""
    return await state.services.call(
        CatalogMethods.LIST_TEMPLATES,
        ListTemplates(
            principal=user,
            search=search,
            category=category,
            tag=tag,
            catalog_id=catalog_id,
            limit=limit,
            cursor=cursor,
        ),
    )


@router.get("/templates/{template_id}", tags=["templates"], responses=problems(401, 404))
async def get_template(
    template_id: TemplateIdText, user: CurrentUser, state: StateDep, response: Response
) -> TemplateDetail:
    """One template with its manifest."""
    found = await state.services.call(
        CatalogMethods.GET_TEMPLATE, GetTemplate(principal=user, template_id=template_id)
    )
    response.headers["ETag"] = f'"{found.digest}"'
    return found


@router.get("/catalogs", tags=["catalogs"], responses=problems(401))
async def list_catalogs(user: CurrentUser, state: StateDep) -> CatalogList:
    return await state.services.call(CatalogMethods.LIST_CATALOGS, ListCatalogs(principal=user))


@router.post("/catalogs", tags=["catalogs"], status_code=202, responses=problems(401, 403, 409))
async def add_catalog(
    body: AddCatalogBody,
    user: OperatorOnly,
    state: StateDep,
    address: ClientAddress,
    response: Response,
) -> Catalog:
    """Add a catalog; its first sync begins at once."""
    state.rates.check("catalog", user.user_id)
    added = await state.services.call(
        CatalogMethods.ADD_CATALOG,
        AddCatalog(
            principal=user,
            address=address,
            name=body.name,
            url=body.url,
            branch=body.branch,
            token=body.token,
        ),
    )
    response.headers["Location"] = f"/api/v1/catalogs/{added.id}"
    return added


@router.get("/catalogs/{catalog_id}", tags=["catalogs"], responses=problems(401, 404))
async def get_catalog(
    catalog_id: CatalogIdText, user: CurrentUser, state: StateDep, response: Response
) -> Catalog:
    found = await state.services.call(
        CatalogMethods.GET_CATALOG, CatalogRequest(principal=user, catalog_id=catalog_id)
    )
    response.headers["ETag"] = etag(found.version)
    return found


@router.delete(
    "/catalogs/{catalog_id}",
    tags=["catalogs"],
    status_code=204,
    responses=problems(401, 403, 404, 409),
)
async def remove_catalog(
    catalog_id: CatalogIdText, user: OperatorOnly, state: StateDep, address: ClientAddress
) -> None:
    """Remove a catalog and withdraw its templates; sessions that run keep running."""
    await state.services.call(
        CatalogMethods.REMOVE_CATALOG,
        CatalogRequest(principal=user, address=address, catalog_id=catalog_id),
    )


@router.post(
    "/catalogs/{catalog_id}/sync",
    tags=["catalogs"],
    status_code=202,
    responses=problems(401, 403, 404),
)
async def sync_catalog(
    catalog_id: CatalogIdText,
    user: OperatorOnly,
    state: StateDep,
    address: ClientAddress,
    response: Response,
) -> Catalog:
    """Begin a sync now."""
    state.rates.check("catalog", user.user_id)
    response.headers["Location"] = f"/api/v1/catalogs/{catalog_id}"
    return await state.services.call(
        CatalogMethods.SYNC_CATALOG,
        CatalogRequest(principal=user, address=address, catalog_id=catalog_id),
    )


@router.get("/catalogs/{catalog_id}/report", tags=["catalogs"], responses=problems(401, 403, 404))
async def sync_report(catalog_id: CatalogIdText, user: OperatorOnly, state: StateDep) -> SyncReport:
    """What the last sync made of each file, and why."""
    return await state.services.call(
        CatalogMethods.SYNC_REPORT, CatalogRequest(principal=user, catalog_id=catalog_id)
    )
