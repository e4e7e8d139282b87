"""Removing a cluster from the command line: asked first, and told what ended with it."""

import io
import json
from pathlib import Path

import httpx2
import pytest

from streamspace_cli import main
from streamspace_cli.contexts import Context, Contexts, Tokens, default_path
from streamspace_cli.exits import ExitCode

EAST = {
    "id": "east",
    "name": "East",
    "presence": "offline",
    "revokedAt": "2026-01-01T00:00:00Z",
    "reservedSessions": 2,
    "runningSessions": 0,
    "waitingCommands": 3,
    "agents": 0,
}


class ControlPlane:
    """Answers as the API does; refuses to remove what has sessions, unless told to end them."""

    def __init__(self) -> None:
        self.deleted: list[dict[str, str]] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            shown = EAST if request.url.path.endswith("east") else {"items": [EAST]}
            return httpx2.Response(200, json=shown)
        query = dict(request.url.params)
        self.deleted.append(query)
        if query.get("endSessions") != "true":
            problem = {"title": "No", "status": 409, "code": "wrong-state", "detail": "It has 2."}
            return httpx2.Response(
                409, json=problem, headers={"Content-Type": "application/problem+json"}
            )
        return httpx2.Response(200, json={"clusterId": "east", "endedSessions": 2})


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ControlPlane:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("STREAMSPACE_URL", "STREAMSPACE_TOKEN", "STREAMSPACE_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    made = ControlPlane()
    monkeypatch.setattr(
        "streamspace_cli.run.open_client",
        lambda context, timeout: httpx2.Client(
            base_url="http://here/api/v1/", transport=httpx2.MockTransport(made.answer)
        ),
    )
    kept = Contexts(default_path({"XDG_CONFIG_HOME": str(tmp_path)}))
    kept.save(Context("home", "http://localhost:1", tokens=Tokens("t")))
    return made


def confirming(monkeypatch, answer):
    asked = []

    def confirm(question, **_):
        asked.append(question)
        return answer

    monkeypatch.setattr("typer.confirm", confirm)
    return asked


def test_it_is_asked_for_and_a_no_removes_nothing(plane, monkeypatch, capsys):
    asked = confirming(monkeypatch, answer=False)
    assert main.run(["clusters", "remove", "east", "--end-sessions"]) == ExitCode.FAILED
    assert asked == ["Remove east for good and end 2 sessions?"]
    assert plane.deleted == []
    assert "Nothing was removed" in capsys.readouterr().err


def test_a_script_that_does_not_say_yes_is_told_to(plane, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main.run(["clusters", "remove", "east"]) == ExitCode.FAILED
    assert plane.deleted == []
    assert "--yes" in capsys.readouterr().err


def test_sessions_end_only_when_told_so(plane, capsys):
    assert main.run(["clusters", "remove", "east", "--yes"]) == ExitCode.CONFLICT
    assert "It has 2." in capsys.readouterr().err
    assert main.run(["clusters", "remove", "east", "--yes", "--end-sessions"]) == ExitCode.OK
    assert plane.deleted == [{}, {"endSessions": "true"}]
    assert "east is removed. 2 sessions ended." in capsys.readouterr().err


def test_a_revoked_cluster_is_marked_in_the_list_and_told_in_full(plane, capsys):
    assert main.run(["clusters", "list"]) == ExitCode.OK
    assert "offline, revoked" in capsys.readouterr().out
    assert main.run(["clusters", "show", "east"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "Access revoked" in out
    assert "3, for a new enrolment" in out
    assert main.run(["clusters", "list", "-o", "json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)[0]["revokedAt"]
