"""What routes make of requests and answers."""

from datetime import UTC, datetime

import httpx2
import pytest
import structlog
from starlette.exceptions import HTTPException

from streamspace_common.contracts.catalog import Protocol, ResourceAmounts
from streamspace_common.contracts.dead_letters import (
    DeadLetter,
    DeadLetterCause,
    DeadLetterId,
    DeadLetterState,
)
from streamspace_common.contracts.identity import Principal, Role, User
from streamspace_common.contracts.ids import (
    ClusterId,
    CommandId,
    SessionId,
    TemplateId,
    UserId,
)
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    DeadLetterPage,
    ListDeadLetters,
    RetryAccepted,
    SessionAccepted,
    Ticket,
    Tokens,
)
from streamspace_common.contracts.sessions import (
    DesiredState,
    Owner,
    Session,
    SessionState,
    ViewerRole,
)
from streamspace_gateway.asking import caused
from streamspace_gateway.routes.sessions import connect_answer
from streamspace_gateway.settings import GatewaySettings
from streamspace_gateway.webapp import WebApp

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SESSION_ID = SessionId("user-desktop-0a1b2c3d")
USER = User(
    id=UserId("usr-" + "3" * 32),
    username="user",
    role=Role.USER,
    created_at=NOW,
    updated_at=NOW,
    version=4,
)
SESSION = Session(
    id=SESSION_ID,
    owner=Owner(user_id=USER.id, username="user"),
    template_id=TemplateId("starter_desktop"),
    template_name="desktop",
    template_display_name="Desktop",
    template_digest="d",
    cluster_id=ClusterId("local"),
    state=SessionState.PENDING,
    desired=DesiredState.RUNNING,
    generation=1,
    protocol=Protocol.VNC,
    resources=ResourceAmounts(),
    created_at=NOW,
    updated_at=NOW,
    version=7,
)
ACCEPTED = SessionAccepted(session=SESSION, command_id=CommandId("cmd-0a1b2c3d"))
TOKENS = Tokens(
    access_token="access", expires_in=900, refresh_token="refresh", refresh_expires_in=60, user=USER
)


async def test_create_answers_202_with_location_command_and_etag(gateway):
    gateway.services.answers["session.create"] = ACCEPTED
    answer = await gateway.client.post(
        "/api/v1/sessions",
        json={"template": "desktop", "resources": {"cpu": "250m"}},
        headers={**gateway.as_(Role.USER), "Idempotency-Key": "once"},
    )
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/sessions/{SESSION_ID}"
    assert answer.headers["etag"] == '"7"'
    assert answer.json()["commandId"] == "cmd-0a1b2c3d"
    assert answer.json()["session"]["templateId"] == "starter_desktop"
    [(_, asked)] = gateway.services.asked
    assert (asked.idempotency_key, asked.resources.cpu, asked.resources.memory) == (
        "once",
        "250m",
        None,
    )


async def test_a_replayed_create_says_so(gateway):
    gateway.services.answers["session.create"] = ACCEPTED.model_copy(update={"replayed": True})
    answer = await gateway.client.post(
        "/api/v1/sessions", json={"template": "desktop"}, headers=gateway.as_(Role.USER)
    )
    assert answer.headers["idempotency-replayed"] == "true"


async def test_an_expensive_route_is_limited_per_user(gateway):
    gateway.services.answers["session.create"] = ACCEPTED
    answers = [
        await gateway.client.post(
            "/api/v1/sessions", json={"template": "desktop"}, headers=gateway.as_(Role.USER)
        )
        for _ in range(4)
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    other = await gateway.client.post(
        "/api/v1/sessions", json={"template": "desktop"}, headers=gateway.as_(Role.ADMIN)
    )
    assert other.status_code == 202


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"template": ""}, "/template"),
        ({"template": 5}, "/template"),
        ({}, "/template"),
        ({"template": "x", "idleTimeout": 1}, "/idleTimeout"),
        ({"template": "x", "typo": True}, "/typo"),
        ({"template": "x", "clusterId": "No Such Name"}, "/clusterId"),
    ],
)
async def test_a_bad_field_is_named(gateway, body, pointer):
    answer = await gateway.client.post(
        "/api/v1/sessions", json=body, headers=gateway.as_(Role.USER)
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid-request"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert not gateway.services.asked


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"template": NaN}', b'"\\ud800"']
)
async def test_a_body_that_is_no_object_is_refused(gateway, content):
    answer = await gateway.client.post(
        "/api/v1/sessions",
        content=content,
        headers={**gateway.as_(Role.USER), "Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_oversized_body_is_refused(gateway):
    answer = await gateway.client.post(
        "/api/v1/sessions", json={"template": "x" * 10_000}, headers=gateway.as_(Role.USER)
    )
    assert answer.status_code == 413
    assert answer.json()["code"] == "payload-too-large"


async def test_a_service_problem_reaches_the_caller_as_it_is(gateway):
    gateway.services.answers["session.get"] = ProblemError.of(Code.NOT_FOUND, "No such session.")
    answer = await gateway.client.get(
        f"/api/v1/sessions/{SESSION_ID}", headers=gateway.as_(Role.USER)
    )
    assert answer.status_code == 404
    assert answer.json()["detail"] == "No such session."
    assert answer.json()["requestId"]


async def test_a_bug_gives_an_internal_problem_without_a_traceback(gateway):
    gateway.services.answers["session.get"] = RuntimeError("secret detail")
    answer = await gateway.client.get(
        f"/api/v1/sessions/{SESSION_ID}", headers=gateway.as_(Role.USER)
    )
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "secret detail" not in answer.text


async def test_login_gives_the_refresh_token_in_the_body_by_default(gateway):
    gateway.services.answers["auth.login"] = TOKENS
    answer = await gateway.client.post(
        "/api/v1/auth/login", json={"username": "user", "password": "pw"}
    )
    assert answer.json()["refreshToken"] == "refresh"
    assert "set-cookie" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"


async def test_login_hides_the_refresh_token_in_a_cookie_when_asked(gateway):
    gateway.services.answers["auth.login"] = TOKENS
    answer = await gateway.client.post(
        "/api/v1/auth/login", json={"username": "user", "password": "pw", "delivery": "cookie"}
    )
    assert answer.json()["refreshToken"] is None
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/api/v1/auth" in cookie


async def test_the_cookie_alone_does_not_refresh(gateway):
    gateway.services.answers["auth.refresh"] = TOKENS
    cookie = {"Cookie": "streamspace_refresh=refresh"}
    refused = await gateway.client.post("/api/v1/auth/refresh", headers=cookie)
    assert refused.status_code == 403
    answer = await gateway.client.post(
        "/api/v1/auth/refresh", headers={**cookie, "X-StreamSpace-Request": "1"}
    )
    assert answer.status_code == 200
    assert answer.json()["refreshToken"] is None


async def test_a_change_carries_only_the_given_fields_and_the_version(gateway):
    gateway.services.answers["auth.update_user"] = USER
    answer = await gateway.client.patch(
        f"/api/v1/users/{USER.id}",
        json={"disabled": True},
        headers={**gateway.as_(Role.ADMIN), "If-Match": '"3"'},
    )
    assert answer.headers["etag"] == '"4"'
    [(_, asked)] = gateway.services.asked
    assert asked.if_version == 3
    assert asked.model_fields_set >= {"disabled"}
    assert "role" not in asked.model_fields_set


async def test_a_foreign_etag_fails_the_precondition(gateway):
    answer = await gateway.client.patch(
        f"/api/v1/users/{USER.id}",
        json={"disabled": True},
        headers={**gateway.as_(Role.ADMIN), "If-Match": '"abc"'},
    )
    assert answer.status_code == 412


def ticket(protocol: Protocol) -> Ticket:
    return Ticket(
        ticket="t0p",
        session_id=SESSION_ID,
        role=ViewerRole.CONTROL,
        protocol=protocol,
        expires_at=NOW,
    )


@pytest.mark.parametrize(
    ("base", "stream_url", "url"),
    [
        ("http://localhost:8080/", None, f"ws://localhost:8081/streams/{SESSION_ID}"),
        ("https://me.example.org/", None, f"wss://me.example.org:8081/streams/{SESSION_ID}"),
        ("http://[::1]:8080/", None, f"ws://[::1]:8081/streams/{SESSION_ID}"),
        ("http://x/", "wss://relay.example.org", f"wss://relay.example.org/streams/{SESSION_ID}"),
    ],
)
def test_a_stream_is_beside_the_api_or_where_the_setting_says(base, stream_url, url):
    answer = connect_answer(ticket(Protocol.VNC), base, GatewaySettings(stream_url=stream_url))
    assert answer.url == url
    assert answer.protocols == ("binary", "streamspace.ticket.t0p")


def test_a_web_client_is_entered_at_its_own_origin():
    answer = connect_answer(ticket(Protocol.HTTP), "http://localhost:8080/", GatewaySettings())
    assert answer.url == f"http://{SESSION_ID}.localhost:8081/_streamspace/enter"
    assert "t0p" not in answer.url


LETTER = DeadLetter(
    id=DeadLetterId("cmd-0a1b2c3d.1"),
    cluster_id=ClusterId("local"),
    session_id=SESSION_ID,
    cause=DeadLetterCause.TERMINATED,
    reason="The disk is full.",
    origin_stream="COMMANDS",
    died_at=NOW,
)


async def test_a_session_is_shown_as_it_was_at_a_moment(gateway):
    gateway.services.answers["session.at"] = SESSION
    url = f"/api/v1/sessions/{SESSION_ID}"
    answer = await gateway.client.get(
        url, params={"at": "2026-01-02T04:04:05+01:00"}, headers=gateway.as_(Role.USER)
    )
    assert answer.status_code == 200
    [(_, asked)] = gateway.services.asked
    assert asked.at == NOW
    for unclear in ("yesterday", "2026-01-02T03:04:05"):
        answer = await gateway.client.get(
            url, params={"at": unclear}, headers=gateway.as_(Role.USER)
        )
        assert answer.status_code == 422


async def test_a_retried_letter_answers_202_and_where_its_session_is(gateway):
    gateway.services.answers["session.retry_dead_letter"] = RetryAccepted(
        letter=LETTER, session=SESSION, command_id=CommandId("cmd-0a1b2c3e")
    )
    answer = await gateway.client.post(
        f"/api/v1/dead-letters/{LETTER.id}/retry", headers=gateway.as_(Role.OPERATOR)
    )
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/sessions/{SESSION_ID}"
    assert answer.json()["commandId"] == "cmd-0a1b2c3e"
    [(_, asked)] = gateway.services.asked
    assert asked.letter_id == LETTER.id


async def test_dead_letters_are_filtered_and_paged(gateway):
    gateway.services.answers["session.list_dead_letters"] = DeadLetterPage(items=(LETTER,))
    answer = await gateway.client.get(
        "/api/v1/dead-letters",
        params={"clusterId": "local", "state": ["open", "retried"], "limit": 5},
        headers=gateway.as_(Role.OPERATOR),
    )
    assert answer.json()["items"][0]["reason"] == "The disk is full."
    [(_, asked)] = gateway.services.asked
    assert (asked.cluster_id, asked.limit) == ("local", 5)
    assert asked.states == (DeadLetterState.OPEN, DeadLetterState.RETRIED)


def test_what_is_asked_names_the_request_behind_it():
    principal = Principal(user_id=USER.id, username="user", role=Role.USER)
    request = ListDeadLetters(principal=principal)
    assert caused(request).request_id is None
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        assert caused(request).request_id == "r-1"
        assert caused(request.model_copy(update={"request_id": "r-0"})).request_id == "r-0"


async def test_a_cluster_is_drained_with_its_sessions_only_when_told_so(gateway):
    url = "/api/v1/clusters/local/drain"
    for body, hibernate in (({}, False), ({"json": {"hibernate": True}}, True)):
        await gateway.client.post(url, headers=gateway.as_(Role.OPERATOR), **body)
        _, asked = gateway.services.asked[-1]
        assert (asked.cluster_id, asked.hibernate) == ("local", hibernate)
    refused = await gateway.client.post(
        url, headers=gateway.as_(Role.OPERATOR), json={"hibernat": True}
    )
    assert refused.status_code == 422


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_what_operators_watch_is_not_on_the_public_port(gateway, tmp_path, path):
    assert (await gateway.client.get(path)).status_code == 404
    (tmp_path / "index.html").write_text("<title>StreamSpace</title>")
    transport = httpx2.ASGITransport(WebApp(tmp_path), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/sessions")).status_code == 200
        with pytest.raises(HTTPException):
            await WebApp(tmp_path).get_response(path.lstrip("/"), {"method": "GET"})
