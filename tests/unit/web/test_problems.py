"""What a client is told when something is wrong, whatever it was."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from pydantic import BaseModel, SecretStr

from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.web import problems
from streamspace_common.web.metrics import exposition

LIMIT = 1000


class Order(BaseModel):
    amount: int
    password: SecretStr = SecretStr("")
    note: str = ""


def make_app() -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/api")

    @router.post("/orders/{number}")
    async def order(number: int, order: Order, limit: int = 1) -> Order:
        return order

    @router.get("/busy")
    async def busy() -> None:
        raise ProblemError.of(Code.SERVICE_UNAVAILABLE, "Come back.", retry_after=7)

    @router.get("/secret")
    async def secret() -> None:
        raise HTTPException(401)

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the database password is hunter2")

    app.include_router(router)
    problems.install(app, max_body=LIMIT)
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(make_app())
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def assert_problem(answer: httpx2.Response, status: int, code: Code) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code
    assert body["status"] == status
    assert body["requestId"] == answer.headers["x-request-id"]
    return body


async def test_a_wrong_field_is_pointed_at(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/api/orders/1", json={"amount": "many"})
    body = assert_problem(answer, 422, Code.INVALID_REQUEST)
    [error] = body["errors"]
    assert error["pointer"] == "/amount"
    assert body["instance"] == "/api/orders/1"


async def test_wrong_parameters_are_named(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/api/orders/x?limit=y", json={"amount": 1})
    body = assert_problem(answer, 422, Code.INVALID_REQUEST)
    assert {e["pointer"] for e in body["errors"]} == {"number", "limit"}


async def test_what_was_sent_is_never_repeated(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/api/orders/1", json={"amount": 1, "password": {"x": "hunter2"}})
    assert_problem(answer, 422, Code.INVALID_REQUEST)
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"amount": 1, "note": "\\u0000"}',
        b'{"amount": 1, "note": "\x00"}',
        b'{"amount": 1, "note": "\\ud800"}',
        b'{"amount": 1e999}',
        b"[" * 900,
    ],
)
async def test_an_unreadable_body_is_a_problem(client: httpx2.AsyncClient, body: bytes) -> None:
    answer = await client.post(
        "/api/orders/1", content=body, headers={"content-type": "application/json"}
    )
    assert_problem(answer, 422, Code.INVALID_REQUEST)


async def test_an_escaped_backslash_before_u0000_is_fine(client: httpx2.AsyncClient) -> None:
    answer = await client.post(
        "/api/orders/1",
        content=b'{"amount": 1, "note": "\\\\u0000"}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 200
    assert answer.json()["note"] == "\\u0000"


@pytest.mark.parametrize("address", ["/api/orders/%00", "/api/busy?x=%00"])
async def test_a_nul_in_the_address_is_refused(client: httpx2.AsyncClient, address: str) -> None:
    assert_problem(await client.get(address), 422, Code.INVALID_REQUEST)


async def test_a_large_body_is_refused_by_its_length(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/api/orders/1", content=b"x" * (LIMIT + 1))
    assert_problem(answer, 413, Code.PAYLOAD_TOO_LARGE)


async def test_a_large_chunked_body_is_refused_while_it_comes(client: httpx2.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * LIMIT:
            sent += 100
            yield b"x" * 100

    answer = await client.post("/api/orders/1", content=endless())
    assert_problem(answer, 413, Code.PAYLOAD_TOO_LARGE)
    assert sent <= LIMIT + 200


async def test_a_body_of_exactly_the_limit_is_taken(client: httpx2.AsyncClient) -> None:
    content = json.dumps({"amount": 1, "note": ""}).encode()
    padded = content[:-2] + b"n" * (LIMIT - len(content)) + content[-2:]
    assert len(padded) == LIMIT
    answer = await client.post(
        "/api/orders/1", content=padded, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200


async def test_an_unknown_address_is_a_problem(client: httpx2.AsyncClient) -> None:
    assert_problem(await client.get("/nowhere"), 404, Code.NOT_FOUND)


async def test_a_wrong_method_tells_the_right_ones(client: httpx2.AsyncClient) -> None:
    answer = await client.delete("/api/busy")
    assert_problem(answer, 405, Code.METHOD_NOT_ALLOWED)
    assert answer.headers["allow"] == "GET"


async def test_a_problem_tells_when_to_come_back(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/busy")
    assert_problem(answer, 503, Code.SERVICE_UNAVAILABLE)
    assert answer.headers["retry-after"] == "7"


async def test_an_unauthenticated_caller_is_challenged(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/secret")
    assert_problem(answer, 401, Code.UNAUTHENTICATED)
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_the_unexpected_tells_nothing_but_an_id(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/broken")
    body = assert_problem(answer, 500, Code.INTERNAL)
    assert "hunter2" not in answer.text
    assert str(body["requestId"]) in str(body["detail"])


async def test_a_sane_request_id_is_kept(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/nowhere", headers={"x-request-id": "from-the-client.1"})
    assert answer.headers["x-request-id"] == "from-the-client.1"


@pytest.mark.parametrize("given", ["", "short", "x" * 65, "with spaces in it", '{"a":"b"}xx'])
async def test_any_other_request_id_is_replaced(client: httpx2.AsyncClient, given: str) -> None:
    answer = await client.get("/nowhere", headers={"x-request-id": given})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_metrics_carry_the_route_and_never_the_path(client: httpx2.AsyncClient) -> None:
    await client.post("/api/orders/987654321", json={"amount": 1})
    await client.get("/some-path-nobody-serves")
    text = bytes(exposition().body).decode()
    assert 'route="/api/orders/{number}"' in text
    assert 'route="unmatched"' in text
    assert "987654321" not in text
    assert "some-path-nobody-serves" not in text
