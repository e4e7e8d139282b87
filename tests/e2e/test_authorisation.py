"""Who gets what answer from which route: the whole matrix, against the real services.

One row for each route of the OpenAPI document, one column for each kind of caller. A
route without a row fails, and so does a row whose route is gone. The subject is one
running session; its owner is an ordinary user.
"""

import asyncio
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from tests.support.stack import ADMIN_PASSWORD, Stack

from streamspace_common.testing.waiting import eventually
from streamspace_gateway.openapi import document

CALLERS = ("anonymous", "other", "owner", "viewer", "operator", "admin", "agent")
# `other` is a user who owns nothing here. `viewer` holds a view ticket for the session, and
# `agent` a cluster's credentials for the bus: neither opens any route.

Expected = tuple[tuple[int, ...], ...]
ACTED = (202, 409)
# The state of the session decides which; what matters here is that the caller was let in.


def row(*columns: int | tuple[int, ...]) -> Expected:
    assert len(columns) == len(CALLERS)
    return tuple((column,) if isinstance(column, int) else column for column in columns)


def everybody(status: int) -> Expected:
    return row(*[status] * len(CALLERS))


def signed_in(status: int) -> Expected:
    return row(401, status, status, 401, status, status, 401)


def mine(status: int | tuple[int, ...]) -> Expected:
    """The owner's, and operators'; to anybody else it does not exist."""
    return row(401, 404, status, 401, status, status, 401)


def operators(status: int) -> Expected:
    return row(401, 403, 403, 401, status, status, 401)


def admins(status: int) -> Expected:
    return row(401, 403, 403, 401, 403, status, 401)


MATRIX: dict[str, Expected] = {
    # Signing in: what is sent decides, not who sends it.
    "POST /auth/login": everybody(200),
    "POST /auth/refresh": everybody(401),
    "POST /auth/logout": everybody(204),
    "GET /auth/jwks": everybody(200),
    # Accounts.
    "GET /users/me": signed_in(200),
    "POST /users/me/password": signed_in(200),
    "GET /users": admins(200),
    "POST /users": admins(201),
    "GET /users/{user_id}": admins(200),
    "PATCH /users/{user_id}": admins(200),
    # What can be launched.
    "GET /templates": signed_in(200),
    "GET /templates/{template_id}": signed_in(200),
    "GET /catalogs": signed_in(200),
    "POST /catalogs": operators(409),  # The name is taken.
    "GET /catalogs/{catalog_id}": signed_in(200),
    "DELETE /catalogs/{catalog_id}": operators(409),  # It is the built-in one.
    "POST /catalogs/{catalog_id}/sync": operators(202),
    "GET /catalogs/{catalog_id}/report": operators(200),
    # Where it runs.
    "GET /runtimes": signed_in(200),
    "GET /clusters": operators(200),
    "GET /clusters/{cluster_id}": operators(200),
    "POST /clusters": admins(409),  # It is enrolled already.
    "POST /clusters/{cluster_id}/drain": operators(404),  # Draining ours would hinder others.
    "POST /clusters/{cluster_id}/undrain": operators(404),
    "POST /clusters/{cluster_id}/redrive": admins(202),
    "POST /clusters/{cluster_id}/revoke": admins(
        404
    ),  # Of one that nobody knows: it would end here.
    "DELETE /clusters/{cluster_id}": admins(404),  # The same.
    # Sessions.
    "GET /sessions": signed_in(200),
    "POST /sessions": signed_in(404),  # There is no such template.
    "GET /events": signed_in(200),
    "GET /sessions/{session_id}": mine(200),
    "GET /sessions/{session_id}/commands": mine(200),
    "GET /sessions/{session_id}/history": mine(200),
    "GET /sessions/{session_id}/events": mine(200),
    "POST /sessions/{session_id}/connect": mine((200, 409)),
    "POST /sessions/{session_id}/keepalive": mine((200, 409)),
    "POST /sessions/{session_id}/hibernate": mine(ACTED),
    "POST /sessions/{session_id}/wake": mine(ACTED),
    "DELETE /sessions/{session_id}": mine(202),
    # Commands that gave up.
    "GET /dead-letters": operators(200),
    "POST /dead-letters/{letter_id}/retry": operators(404),
    "POST /dead-letters/{letter_id}/discard": operators(404),
}

ROUTES = [
    f"{method.upper()} {path.removeprefix('/api/v1')}"
    for path, methods in json.loads(document())["paths"].items()
    for method in methods
]


@dataclass
class Caller:
    """One column: what is sent along, and the account behind it where there is one."""

    headers: dict[str, str]
    username: str = ""
    password: str = ""
    user_id: str = ""


@dataclass
class World:
    """The running services, the callers, and the session that they all try."""

    client: httpx2.Client
    callers: dict[str, Caller] = field(default_factory=dict)
    session_id: str = ""

    def request(self, caller: Caller, method: str, path: str, **more: Any) -> httpx2.Response:
        return self.client.request(method, f"/api/v1{path}", headers=caller.headers, **more)

    def status(self, caller: Caller, method: str, path: str, **more: Any) -> int:
        """The answer's status, without waiting for the end of an answer that never ends."""
        with self.client.stream(method, f"/api/v1{path}", headers=caller.headers, **more) as answer:
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json"
            return int(answer.status_code)

    def sign_in(self, username: str, password: str) -> Caller:
        body = {"username": username, "password": password}
        answer = self.client.post("/api/v1/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        token, user = answer.json()["accessToken"], answer.json()["user"]
        return Caller({"Authorization": f"Bearer {token}"}, username, password, user["id"])

    def new_account(self, admin: Caller, name: str, role: str) -> Caller:
        username, password = f"{name}-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
        body = {"username": username, "password": password, "role": role}
        answer = self.request(admin, "POST", "/users", json=body)
        assert answer.status_code == 201, answer.text
        return self.sign_in(username, password)

    def new_session(self, owner: Caller) -> str:
        body = {"template": "starter_terminal"}
        answer = self.request(owner, "POST", "/sessions", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["session"]["id"])

    def state_of(self, session_id: str) -> str:
        answer = self.request(self.callers["owner"], "GET", f"/sessions/{session_id}")
        return str(answer.json()["state"])

    def arguments(self, route: str, caller: Caller) -> dict[str, Any]:
        """A body that an entitled caller gets the expected answer for."""
        account = self.callers["other"]
        bodies: dict[str, Any] = {
            "POST /auth/login": {"username": account.username, "password": account.password},
            "POST /auth/refresh": {"refreshToken": "opaque"},
            "POST /auth/logout": {"refreshToken": "opaque"},
            "POST /users/me/password": {
                "currentPassword": caller.password or "none of theirs",
                "newPassword": caller.password or "none of theirs",
            },
            "POST /users": {
                "username": f"matrix-{secrets.token_hex(4)}",
                "password": secrets.token_urlsafe(16),
            },
            "PATCH /users/{user_id}": {"role": "user"},
            "POST /catalogs": {"name": "starter", "url": "https://example.org/starter.git"},
            "POST /clusters": {"id": "local"},
            "POST /sessions": {"template": "no-such-template"},
        }
        return {"json": bodies[route]} if route in bodies else {}

    def path(self, route: str, session_id: str) -> str:
        values = {
            "template_id": "starter_desktop",
            "catalog_id": "starter",
            "cluster_id": "nowhere"
            if route.endswith(("drain", "revoke")) or route.startswith("DELETE /clusters")
            else "local",
            "letter_id": "cmd-0a1b2c3d.1",
            "user_id": self.callers["owner"].user_id,
            "session_id": session_id,
        }
        return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], route.partition(" ")[2])


@pytest.fixture(scope="module")
def world(stack: Stack) -> Iterator[World]:
    with httpx2.Client(base_url=stack.url, timeout=30, trust_env=False) as client:
        world = World(client)
        first_admin = world.sign_in("admin", ADMIN_PASSWORD)
        callers = world.callers
        callers["anonymous"] = Caller({})
        callers["other"] = world.new_account(first_admin, "other", "user")
        callers["owner"] = world.new_account(first_admin, "owner", "user")
        callers["operator"] = world.new_account(first_admin, "operator", "operator")
        callers["admin"] = world.new_account(first_admin, "admin", "admin")
        world.session_id = world.new_session(callers["owner"])
        try:
            callers["viewer"] = Caller({"Authorization": f"Bearer {view_ticket(world)}"})
            callers["agent"] = Caller({"Authorization": f"Bearer {bus_credential(stack)}"})
            yield world
        finally:
            world.request(callers["owner"], "DELETE", f"/sessions/{world.session_id}")


def view_ticket(world: World) -> str:
    """A ticket that lets its holder watch the session, and nothing else."""
    owner, session = world.callers["owner"], world.session_id
    asyncio.run(eventually(lambda: world.state_of(session) == "running", timeout=60))
    answer = world.request(owner, "POST", f"/sessions/{session}/connect", json={"role": "view"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["ticket"])


def bus_credential(stack: Stack) -> str:
    """The token in the credentials of this machine's agent."""
    enrolment = json.loads((stack.data / "secrets" / "agent-local.json").read_text())
    found = re.search(r"BEGIN NATS USER JWT-----\s+(\S+)", enrolment["credentials"])
    assert found
    return found[1]


def test_every_route_has_a_row_and_every_row_a_route():
    assert sorted(MATRIX) == sorted(ROUTES)


@pytest.mark.parametrize("route", sorted({*MATRIX, *ROUTES}))
def test_a_route_answers_each_caller_as_the_matrix_says(world, route):
    expected = dict(zip(CALLERS, MATRIX[route], strict=True))
    method = route.partition(" ")[0]
    wrong = {}
    for name, caller in world.callers.items():
        # What is deleted here is not what the other rows need.
        ends = method == "DELETE" and "{session_id}" in route
        session = world.new_session(world.callers["owner"]) if ends else world.session_id
        arguments = world.arguments(route, caller)
        status = world.status(caller, method, world.path(route, session), **arguments)
        if status not in expected[name]:
            wrong[name] = f"{status} instead of {expected[name]}"
        if ends:
            world.request(world.callers["owner"], method, f"/sessions/{session}")
    assert not wrong


def test_a_list_shows_a_session_to_its_owner_and_to_operators_only(world):
    def listed(name: str, **query: Any) -> tuple[int, bool]:
        caller = world.callers[name]
        answer = world.request(caller, "GET", "/sessions", params={"includeFinal": True, **query})
        items = answer.json().get("items", [])
        return answer.status_code, world.session_id in {item["id"] for item in items}

    owner_id = world.callers["owner"].user_id
    assert listed("owner") == (200, True)
    assert listed("other") == (200, False)
    assert listed("other", ownerId=owner_id) == (403, False)
    assert listed("other", everyone=True) == (403, False)
    assert listed("operator") == (200, False)
    assert listed("operator", ownerId=owner_id) == (200, True)
    assert listed("admin", ownerId=owner_id) == (200, True)
