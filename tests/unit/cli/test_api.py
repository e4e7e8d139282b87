"""Talking to the API: tokens that end, servers that are away, errors as one sentence."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from streamspace_cli.api import Api
from streamspace_cli.contexts import Context, Contexts, Tokens
from streamspace_cli.exits import CliError, ExitCode

FRESH = Tokens("fresh", "refresh-2", 4e9)
STALE = Tokens("stale", "refresh-1", 0.0)
CONTEXT = Context("here", "http://here", "ada", tokens=FRESH)
Answer = Callable[[httpx2.Request], httpx2.Response]


def problem(status: int, code: str, detail: str, **more: Any) -> httpx2.Response:
    return httpx2.Response(
        status,
        json={"code": code, "detail": detail, "status": status, **more},
        headers={"content-type": "application/problem+json", **more.pop("headers", {})},
    )


def api(
    answer: Answer, context: Context = CONTEXT, contexts: Contexts | None = None
) -> tuple[Api, list[float]]:
    pauses: list[float] = []
    client = httpx2.Client(base_url="http://here/api/v1", transport=httpx2.MockTransport(answer))
    return Api(client, context, contexts, pause=pauses.append), pauses


def refused(answer: Answer, **given: Any) -> CliError:
    with pytest.raises(CliError) as raised:
        api(answer, **given)[0].get("/sessions")
    return raised.value


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, "unauthenticated", 3), (403, "forbidden", 8), (404, "not-found", 4),
        (409, "wrong-state", 5), (412, "precondition-failed", 5), (422, "invalid-request", 2),
        (500, "internal", 1), (502, "session-unreachable", 6), (503, "service-unavailable", 6),
    ],
)  # fmt: skip
def test_every_status_has_its_exit_code(status: int, code: str, exit_code: int):
    assert refused(lambda _: problem(status, code, "It is so.")).code == exit_code


def test_a_problem_is_one_sentence_with_its_fields_and_what_to_do():
    wrong = [{"pointer": "/cpu", "detail": "must be a quantity"}]
    error = refused(lambda _: problem(422, "invalid-request", "Not valid", errors=wrong))
    assert error.message == "Not valid. /cpu: must be a quantity."
    error = refused(lambda _: problem(429, "too-many-requests", "Too many.", retryAfter=60))
    assert error.hint == "Try again in 60 s."
    error = refused(lambda _: problem(500, "internal", "Ours.", requestId="r-1"))
    assert error.more["requestId"] == "r-1"


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, text="<html>"),
        httpx2.Response(404, text="nginx"),
        httpx2.Response(302, headers={"location": "http://elsewhere"}),
        httpx2.Response(400, text="x", headers={"content-type": "application/problem+json"}),
    ],
)
def test_another_server_is_told_apart(answer: httpx2.Response):
    error = refused(lambda _: answer)
    assert "is not StreamSpace" in error.message
    assert error.code is ExitCode.UNREACHABLE


def test_no_server_is_told_at_once():
    def nobody(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no") from OSError(111, "Connection refused")

    error = refused(nobody)
    assert error.message == "http://here cannot be reached (Connection refused)."
    assert error.code is ExitCode.UNREACHABLE


def test_reads_are_repeated_when_the_connection_breaks_and_when_the_server_asks():
    answers = iter(
        [
            httpx2.ReadError("gone"),
            httpx2.Response(
                503, json={"detail": "Away."},
                headers={"content-type": "application/problem+json", "Retry-After": "1"},
            ),
            httpx2.Response(200, json={"items": []}),
        ]
    )  # fmt: skip

    def answer(request: httpx2.Request) -> httpx2.Response:
        now = next(answers)
        if isinstance(now, Exception):
            raise now
        return now

    asked, pauses = api(answer)
    assert asked.get("/sessions") == {"items": []}
    assert len(pauses) == 2


def test_what_may_be_done_once_only_is_not_repeated():
    calls: list[str] = []

    def gone(request: httpx2.Request) -> httpx2.Response:
        calls.append(request.headers.get("idempotency-key", ""))
        raise httpx2.ReadError("gone")

    with pytest.raises(CliError):
        api(gone)[0].post("/sessions/x/hibernate")
    assert len(calls) == 1
    with pytest.raises(CliError):
        api(gone)[0].post("/sessions", {}, key="k")
    assert calls[1:] == ["k"] * 4


def test_a_stale_token_is_refreshed_once_and_kept(tmp_path: Path):
    contexts = Contexts(tmp_path / "contexts.json")
    context = replace(CONTEXT, tokens=STALE)
    contexts.save(context)
    spent: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/auth/refresh"):
            assert "authorization" not in request.headers
            spent.append(request.content)
            body = {"accessToken": "new", "refreshToken": "refresh-2", "expiresIn": 900}
            return httpx2.Response(200, json=body)
        assert request.headers["authorization"] == "Bearer new"
        return httpx2.Response(200, json={"items": []})

    asked, _ = api(answer, context, contexts)
    asked.get("/sessions")
    asked.get("/sessions")
    assert len(spent) == 1
    kept = contexts.get("here")
    assert kept is not None
    assert kept.tokens is not None
    assert (kept.tokens.access, kept.tokens.refresh) == ("new", "refresh-2")


def test_a_token_another_command_has_refreshed_is_not_spent_again(tmp_path: Path):
    contexts = Contexts(tmp_path / "contexts.json")
    contexts.save(CONTEXT)

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path.endswith("/sessions")
        assert request.headers["authorization"] == "Bearer fresh"
        return httpx2.Response(200, json={"items": []})

    api(answer, replace(CONTEXT, tokens=STALE), contexts)[0].get("/sessions")


def test_a_sign_in_that_has_ended_is_forgotten_and_told(tmp_path: Path):
    contexts = Contexts(tmp_path / "contexts.json")
    context = replace(CONTEXT, tokens=STALE)
    contexts.save(context)
    error = refused(
        lambda _: problem(401, "unauthenticated", "Revoked."), context=context, contexts=contexts
    )
    assert error.code is ExitCode.NOT_SIGNED_IN
    assert error.hint == "Sign in again with `streamspace login`."
    kept = contexts.get("here")
    assert kept is not None
    assert kept.tokens is None


def test_a_given_token_is_used_as_it_is():
    error = refused(lambda _: problem(401, "unauthenticated", "Expired."))
    assert error.code is ExitCode.NOT_SIGNED_IN


def test_lists_are_read_to_their_end_or_limit():
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert "everyone" not in request.url.params
        if "cursor" in request.url.params:
            return httpx2.Response(200, json={"items": [3], "nextCursor": None})
        limit = int(request.url.params["limit"])
        return httpx2.Response(200, json={"items": [1, 2][:limit], "nextCursor": "c"})

    assert list(api(answer)[0].pages("/sessions", everyone=None)) == [1, 2, 3]
    assert list(api(answer)[0].pages("/sessions", limit=1)) == [1]


def test_events_are_read_with_their_ids_and_comments_let_clocks_be_looked_at():
    text = 'retry: 1000\n\nid: 7\nevent: state\ndata: {"a": 1}\n\n: still here\n\n'

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["last-event-id"] == "6"
        return httpx2.Response(200, text=text, headers={"content-type": "text/event-stream"})

    with api(answer)[0].events("/sessions/x/events", "6") as events:
        assert list(events) == [("7", "state", {"a": 1}), ("", "", {})]


@pytest.mark.parametrize("id_", ["", "..", "../users", "x?y", "x#y", "%2e%2e", "a\nb"])
def test_an_id_leads_nowhere_else(id_: str):
    def never(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError(request.url)

    asked, _ = api(never)
    with pytest.raises(CliError, match="is not an id") as refused:
        asked.delete(f"/sessions/{id_}")
    assert refused.value.code is ExitCode.USAGE
    with pytest.raises(CliError), asked.events(f"/sessions/{id_}/events"):
        pass
