"""Draining a cluster from the command line: said, waited for, and given up on in words."""

import json
from pathlib import Path

import httpx2
import pytest

from streamspace_cli import main
from streamspace_cli.commands import clusters
from streamspace_cli.contexts import Context, Contexts, Tokens, default_path
from streamspace_cli.exits import ExitCode


class ControlPlane:
    """Answers as the API does; each look at the sessions takes the next of `left`."""

    def __init__(self) -> None:
        self.left: list[list[str]] = []
        self.asked: list[tuple[str, str, object]] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/api/v1")
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, path, body))
        cluster = {"id": "east", "name": "East", "presence": "draining", "drainedBy": "olga"}
        if path == "/sessions":
            states = self.left.pop(0) if len(self.left) > 1 else self.left[0]
            items = [{"id": f"s-{n}", "state": state} for n, state in enumerate(states)]
            return httpx2.Response(200, json={"items": items, "nextCursor": None})
        if path.endswith("/drain"):
            return httpx2.Response(202, json={"cluster": cluster, "hibernating": 2})
        return httpx2.Response(200, json=cluster)

    def drained(self) -> list[object]:
        return [body for _, path, body in self.asked if path == "/clusters/east/drain"]


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
    monkeypatch.setattr(clusters, "_PAUSE", 0.0)
    kept = Contexts(default_path({"XDG_CONFIG_HOME": str(tmp_path)}))
    kept.save(Context("home", "http://localhost:1", tokens=Tokens("t")))
    return made


def test_sessions_stay_unless_told_otherwise(plane, capsys):
    assert main.run(["clusters", "drain", "east"]) == ExitCode.OK
    assert plane.drained() == [{"hibernate": False}]
    out, err = capsys.readouterr()
    assert "olga" in out
    assert err == "east takes no new sessions.\n"


def test_it_waits_until_nothing_runs_there_and_asks_again_for_what_had_just_begun(plane, capsys):
    plane.left = [["running", "hibernating"], ["running"], []]
    assert main.run(["clusters", "drain", "east", "--hibernate", "--wait"]) == ExitCode.OK
    assert plane.drained() == [{"hibernate": True}] * 3
    err = capsys.readouterr().err
    assert "2 sessions to be put to rest" in err
    assert "2 sessions still there" in err
    assert "1 session still there" in err


def test_what_does_not_end_in_time_is_named(plane, capsys):
    plane.left = [["running"]]
    line = ["clusters", "drain", "east", "--wait", "--timeout", "0"]
    assert main.run(line) == ExitCode.TIMED_OUT
    assert "1 session still on east after 0 s: s-0." in capsys.readouterr().err


def test_it_is_taken_back(plane):
    assert main.run(["clusters", "undrain", "east"]) == ExitCode.OK
    assert ("POST", "/clusters/east/undrain", None) in plane.asked


def test_versions_that_are_behind_are_marked(plane):
    instances = [
        {"version": "0.2.0", "behind": False},
        {"version": "0.1.0", "behind": True},
        {"version": "0.1.0", "behind": True},
    ]
    assert clusters._versions({"instances": instances}) == "0.1.0!, 0.2.0"
    assert clusters._versions({"version": "0.1.0"}) == "0.1.0"
