"""The OpenAPI document against the running API: no 5xx, and every answer as documented."""

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.support.stack import ADMIN_PASSWORD

load_all_checks()


@pytest.fixture(scope="session")
def api_schema(stack):
    return schemathesis.openapi.from_url(f"{stack.url}/api/v1/openapi.json")


@pytest.fixture(scope="session")
def token(stack) -> str:
    answer = httpx2.post(
        f"{stack.url}/api/v1/auth/login",
        json={"username": "admin", "password": ADMIN_PASSWORD},
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["accessToken"])


# Event streams never end by themselves; test_session_life reads them.
schema = schemathesis.pytest.from_fixture("api_schema").exclude(path_regex="events$")


@schema.parametrize()
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_input_makes_the_api_fail(case, token):
    response = case.call(headers={"Authorization": f"Bearer {token}"})
    assert response.status_code < 500 or response.status_code in {502, 503}, response.text
    case.validate_response(
        response,
        checks=[content_type_conformance, response_schema_conformance, status_code_conformance],
    )
