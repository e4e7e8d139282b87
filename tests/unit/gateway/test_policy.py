"""Who may call which route: the whole matrix, generated from the OpenAPI document."""

import json
import re
from typing import Any

import pytest

from streamspace_common.contracts.identity import Role
from streamspace_gateway.openapi import document

ANYBODY = {
    ("post", "/api/v1/auth/login"),
    ("post", "/api/v1/auth/refresh"),
    ("post", "/api/v1/auth/logout"),
    ("get", "/api/v1/auth/jwks"),
}
SIGNED_IN = {
    ("get", "/api/v1/users/me"),
    ("post", "/api/v1/users/me/password"),
    ("get", "/api/v1/templates"),
    ("get", "/api/v1/templates/{template_id}"),
    ("get", "/api/v1/catalogs"),
    ("get", "/api/v1/catalogs/{catalog_id}"),
    ("get", "/api/v1/sessions"),
    ("post", "/api/v1/sessions"),
    ("get", "/api/v1/sessions/{session_id}"),
    ("delete", "/api/v1/sessions/{session_id}"),
    ("post", "/api/v1/sessions/{session_id}/hibernate"),
    ("post", "/api/v1/sessions/{session_id}/wake"),
    ("post", "/api/v1/sessions/{session_id}/connect"),
    ("post", "/api/v1/sessions/{session_id}/keepalive"),
    ("get", "/api/v1/sessions/{session_id}/commands"),
    ("get", "/api/v1/sessions/{session_id}/history"),
    ("get", "/api/v1/sessions/{session_id}/events"),
    ("get", "/api/v1/events"),
    ("get", "/api/v1/runtimes"),
}
OPERATORS = {
    ("post", "/api/v1/catalogs"),
    ("delete", "/api/v1/catalogs/{catalog_id}"),
    ("post", "/api/v1/catalogs/{catalog_id}/sync"),
    ("get", "/api/v1/catalogs/{catalog_id}/report"),
    ("get", "/api/v1/clusters"),
    ("get", "/api/v1/clusters/{cluster_id}"),
    ("post", "/api/v1/clusters/{cluster_id}/drain"),
    ("post", "/api/v1/clusters/{cluster_id}/undrain"),
    ("get", "/api/v1/dead-letters"),
    ("post", "/api/v1/dead-letters/{letter_id}/retry"),
    ("post", "/api/v1/dead-letters/{letter_id}/discard"),
}
ADMINS = {
    ("get", "/api/v1/users"),
    ("post", "/api/v1/users"),
    ("get", "/api/v1/users/{user_id}"),
    ("patch", "/api/v1/users/{user_id}"),
    ("post", "/api/v1/clusters"),
    ("post", "/api/v1/clusters/{cluster_id}/redrive"),
    ("post", "/api/v1/clusters/{cluster_id}/revoke"),
    ("delete", "/api/v1/clusters/{cluster_id}"),
}
VALUES = {
    "template_id": "starter_desktop",
    "catalog_id": "starter",
    "session_id": "admin-desktop-0a1b2c3d",
    "cluster_id": "local",
    "letter_id": "cmd-0a1b2c3d.1",
    "user_id": "usr-" + "0" * 32,
}
BODIES: dict[str, Any] = {
    "/api/v1/auth/login": {"username": "a", "password": "b"},
    "/api/v1/users/me/password": {"currentPassword": "x" * 10, "newPassword": "y" * 10},
    "/api/v1/users": {"username": "new", "password": "x" * 12},
    "/api/v1/users/{user_id}": {"role": "user"},
    "/api/v1/sessions": {"template": "desktop"},
    "/api/v1/catalogs": {"name": "mine", "url": "https://example.org/x.git"},
    "/api/v1/clusters": {"id": "east"},
}


def routes() -> list[tuple[str, str]]:
    paths = json.loads(document())["paths"]
    return sorted((method, path) for path, methods in paths.items() for method in methods)


def allowed(route: tuple[str, str]) -> set[Role | None]:
    if route in ANYBODY:
        return {None, *Role}
    if route in SIGNED_IN:
        return set(Role)
    if route in OPERATORS:
        return {Role.OPERATOR, Role.ADMIN}
    assert route in ADMINS, f"say in this table who may call {route}"
    return {Role.ADMIN}


@pytest.mark.parametrize("route", routes(), ids=" ".join)
@pytest.mark.parametrize("role", [None, *Role], ids=str)
async def test_only_the_right_roles_reach_a_service(gateway, route, role):
    method, path = route
    url = re.sub(r"\{(\w+)\}", lambda match: VALUES[match[1]], path)
    headers = gateway.as_(role) if role else {}
    body = {"json": BODIES[path]} if path in BODIES and method in {"post", "patch"} else {}
    if path in {"/api/v1/auth/refresh", "/api/v1/auth/logout"}:
        body = {"json": {"refreshToken": "opaque"}}

    answer = await gateway.client.request(method.upper(), url, headers=headers, **body)

    if role in allowed(route):
        # No service is scripted, so a request that got through the policy ends with 503.
        assert (answer.status_code, len(gateway.services.asked)) in {(503, 1), (200, 0)}, (
            answer.text
        )
    else:
        assert answer.status_code == (403 if role else 401)
        assert answer.json()["code"] == ("forbidden" if role else "unauthenticated")
        assert not gateway.services.asked


def test_the_table_names_no_route_that_is_gone():
    assert set(routes()) == ANYBODY | SIGNED_IN | OPERATORS | ADMINS
