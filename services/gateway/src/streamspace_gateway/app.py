"""The FastAPI application: routes, problems, headers, the web app; no connections."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from streamspace_common.web import problems
from streamspace_gateway.deps import State
from streamspace_gateway.routes import (
    account,
    catalog,
    clusters,
    dead_letters,
    events,
    sessions,
)
from streamspace_gateway.webapp import SecurityHeaders, WebApp

PREFIX = "/api/v1"
DESCRIPTION = """\
Stream desktops and web applications from clusters to a browser.

Sign in with `POST /auth/login` and send the access token as `Authorization: Bearer`.
Whatever starts work answers `202` with the resource, a `Location` and a `commandId`; follow
`GET /sessions/{id}/events` for its progress. Errors are `application/problem+json` with a
stable `code`.
"""


def _operation_id(route: APIRoute) -> str:
    return route.name


def create_app(state: State) -> FastAPI:
    """The application over `state`'s ports."""
    app = FastAPI(
        title="StreamSpace",
        version="0.1.0",
        description=DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    app.state.gateway = state
    # Routes are tried one after the other; what is asked most comes first.
    for module in (sessions, events, account, catalog, clusters, dead_letters):
        app.include_router(module.router, prefix=PREFIX)
    problems.install(app, max_body=state.settings.max_body_bytes)
    app.add_middleware(SecurityHeaders, apps_domain=state.settings.apps_domain)
    if state.settings.web_root is not None:
        app.mount("/", WebApp(state.settings.web_root), name="web")
    _document(app)
    return app


def _document(app: FastAPI) -> None:
    """Let the document say what the validation handler really answers."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                openapi_version="3.1.0",
            )
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
