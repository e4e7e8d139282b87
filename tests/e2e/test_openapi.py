"""The OpenAPI document against the running API: no 5xx, and every answer as documented."""

import httpx2
import pytest
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
    # Event streams never end by themselves; test_session_life reads them.
    if not operation.path.endswith("/events")
}


@pytest.fixture(scope="session")
def token(stack) -> str:
    answer = httpx2.post(
        f"{stack.url}/api/v1/auth/login",
        json={"username": "admin", "password": ADMIN_PASSWORD},
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["accessToken"])


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_input_makes_the_api_fail(stack, token, label):
    @given(case=OPERATIONS[label].as_strategy())
    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers_as_documented(case):
        response = case.call(base_url=stack.url, headers={"Authorization": f"Bearer {token}"})
        assert response.status_code < 500, response.text
        case.validate_response(response, checks=CHECKS)

    answers_as_documented()
