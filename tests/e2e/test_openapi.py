"""The OpenAPI document against the running API: no 5xx, and every answer as documented."""

import secrets

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.support.stack import ADMIN_PASSWORD, REPOSITORY

load_all_checks()
CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]
SCHEMA = schemathesis.openapi.from_path(str(REPOSITORY / "docs/reference/openapi.json"))
OPERATIONS = {
    operation.label: operation
    for operation in (result.ok() for result in SCHEMA.get_all_operations())  # type: ignore[union-attr]
}
ENDLESS = [label for label, operation in OPERATIONS.items() if operation.path.endswith("/events")]
FINITE = [label for label in OPERATIONS if label not in ENDLESS]
AS_MANY_AS_FIT = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="session")
def token(stack) -> str:
    """An administrator of these tests' own: wrong passwords, tried at random, lock it out."""
    with httpx2.Client(base_url=f"{stack.url}/api/v1", trust_env=False) as client:

        def sign_in(username: str, password: str) -> str:
            body = {"username": username, "password": password}
            answer = client.post("/auth/login", json=body)
            assert answer.status_code == 200, answer.text
            return str(answer.json()["accessToken"])

        someone = {"username": "fuzzer", "password": secrets.token_urlsafe(16), "role": "admin"}
        headers = {"Authorization": f"Bearer {sign_in('admin', ADMIN_PASSWORD)}"}
        answer = client.post("/users", json=someone, headers=headers)
        assert answer.status_code == 201, answer.text
        return sign_in(someone["username"], someone["password"])


@pytest.mark.parametrize("label", FINITE)
def test_no_input_makes_the_api_fail(stack, token, label):
    @given(case=OPERATIONS[label].as_strategy())
    @AS_MANY_AS_FIT
    def answers_as_documented(case):
        response = case.call(base_url=stack.url, headers={"Authorization": f"Bearer {token}"})
        assert response.status_code < 500, response.text
        case.validate_response(response, checks=CHECKS)

    answers_as_documented()


@pytest.mark.parametrize("label", ENDLESS)
def test_no_input_makes_an_event_stream_fail(stack, token, label):
    """These answers never end, so only how they begin is read."""

    @given(case=OPERATIONS[label].as_strategy())
    @AS_MANY_AS_FIT
    def begins_as_documented(case):
        request = case.as_transport_kwargs(
            base_url=stack.url, headers={"Authorization": f"Bearer {token}"}
        )
        with requests.Session() as client, client.request(**request, stream=True) as response:
            assert response.status_code in {200, 404, 422}, response.text
            kind = response.headers["content-type"].split(";")[0]
            assert kind == (
                "text/event-stream" if response.status_code == 200 else "application/problem+json"
            )

    begins_as_documented()
