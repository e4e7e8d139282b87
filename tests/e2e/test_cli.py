"""The command line against all of StreamSpace: what a user and a script see of it."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dulwich import porcelain
from tests.support.stack import ADMIN_PASSWORD, FINAL, Api, Stack

from streamspace_common.testing.waiting import eventually
from streamspace_embedded.ports import free_port

pytestmark = pytest.mark.timeout(400)
STREAMSPACE = Path(sys.executable).with_name("streamspace")
TEMPLATE = "starter_terminal"
BROKEN = """\
apiVersion: stream.space/v1alpha1
kind: Template
metadata: {name: broken}
spec:
  displayName: Broken
  description: Names a program that nobody has.
  category: Development
  process: {command: [no-such-program-anywhere]}
  vnc: {enabled: true}
"""


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@dataclass
class Terminal:
    """A shell of one user: environment and configuration of its own."""

    folder: Path
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: v for name, v in os.environ.items() if not name.startswith("STREAMSPACE_")}
        return kept | {"XDG_CONFIG_HOME": str(self.folder / "config")} | dict(self.more)

    async def run(self, *line: str, stdin: str = "", seconds: float = 90) -> Ended:
        process = await asyncio.create_subprocess_exec(
            STREAMSPACE, *line,
            cwd=self.folder, env=self.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(seconds):
                out, err = await process.communicate(stdin.encode())
        except TimeoutError:
            process.kill()
            raise
        assert process.returncode is not None
        assert b"Traceback" not in err, err.decode()
        return Ended(process.returncode, out.decode(), err.decode())

    async def json(self, *line: str) -> Any:
        return (await self.run(*line, "-o", "json")).data

    async def sign_in(self, url: str, username: str, password: str) -> None:
        ended = await self.run(
            "login", url, "--username", username, "--password-stdin", stdin=f"{password}\n"
        )
        assert ended.code == 0, ended.err


@pytest.fixture
async def shell(stack: Stack, tmp_path: Path) -> Terminal:
    """Signed in as an administrator."""
    found = Terminal(tmp_path)
    await found.sign_in(stack.url, "admin", ADMIN_PASSWORD)
    return found


@pytest.fixture
async def user_shell(stack: Stack, tmp_path: Path, user: Api) -> Terminal:
    """Without a file: by the two variables, as in a pipeline. What it starts is ended."""
    return Terminal(tmp_path, {"STREAMSPACE_URL": stack.url, "STREAMSPACE_TOKEN": user.token})


async def test_a_session_lives_its_whole_life(user_shell: Terminal) -> None:
    assert TEMPLATE in [each["id"] for each in await user_shell.json("templates", "list")]
    created = await user_shell.run("sessions", "create", TEMPLATE, "--wait", "-o", "json")
    session = created.data["id"]
    assert created.data["state"] == "running"
    told = created.err.splitlines()
    assert told[0] == f"{session}: pending"
    assert any(re.fullmatch(r"  ready after \d+\.\d s", line) for line in told)
    assert told[-1] == "  running"

    opened = await user_shell.run("sessions", "open", session, "--no-browser")
    assert opened.out.endswith(f"/sessions/{session}/view\n")
    listed = await user_shell.json("sessions", "list")
    assert [each["id"] for each in listed] == [session]
    rested = await user_shell.run("sessions", "hibernate", session, "--wait", "-o", "json")
    assert rested.data["state"] == "hibernated"
    refused = await user_shell.run("sessions", "open", session)
    assert refused.code == 5
    assert f"streamspace sessions wake {session}" in refused.err
    woken = await user_shell.run("sessions", "wake", session, "--wait", "-o", "json")
    assert woken.data["state"] == "running"
    stopped = await user_shell.run("sessions", "stop", session, "--wait", "-o", "json")
    assert stopped.data["state"] == "terminated"

    followed = await user_shell.run("sessions", "events", session, "-o", "json")
    assert json.loads(followed.out.splitlines()[-1])["state"] == "terminated"
    history = await user_shell.json("sessions", "history", session)
    assert [each["toState"] for each in history if each["toState"] == "running"] == ["running"] * 2
    asked = await user_shell.json("sessions", "commands", session)
    assert [each["action"] for each in reversed(asked)] == [
        "start_session", "hibernate_session", "wake_session", "stop_session",
    ]  # fmt: skip


async def test_its_past_is_told_as_a_waterfall_and_at_any_time(user_shell: Terminal) -> None:
    created = await user_shell.run("sessions", "create", TEMPLATE, "--wait", "-o", "json")
    session = created.data["id"]
    trace = await user_shell.run("sessions", "trace", session)
    assert trace.out.startswith("start by user-")
    assert "pending -> starting" in trace.out
    assert "agent:local/" in trace.out
    (chain,) = await user_shell.json("session", "trace", session)
    assert chain["steps"][0]["depth"] == 0
    assert {step["depth"] for step in chain["steps"][1:]} != {0}

    begun = chain["steps"][0]["at"]
    was = await user_shell.json("sessions", "at", session, begun)
    assert was["state"] == "pending"
    assert (await user_shell.json("sessions", "at", session, "0s"))["state"] == "running"
    before = await user_shell.run("sessions", "at", session, "2d")
    assert before.code == 4
    assert (await user_shell.run("sessions", "at", session, "soon")).code == 2


async def test_the_ways_to_fail_have_codes_of_their_own(
    stack: Stack, shell: Terminal, tmp_path: Path
) -> None:
    stranger = Terminal(tmp_path / "config")
    stranger.folder.mkdir(exist_ok=True)
    for line, stdin, code, words in (
        (("login", stack.url, "-u", "admin", "--password-stdin"), "wrong wrong\n", 3, "wrong"),
        (("login", stack.url, "-u", "admin"), "", 2, "--password-stdin"),
        (("sessions", "list"), "", 3, "streamspace login"),
        (("login", f"http://127.0.0.1:{free_port()}", "-u", "a", "--password-stdin"), "x\n", 6,
         "cannot be reached (Connection refused)"),
        (("sessions",), "", 2, "create"),
        (("sessions", "list", "--nonsense"), "", 2, "No such option"),
    ):  # fmt: skip
        ended = await stranger.run(*line, stdin=stdin)
        assert (ended.code, ended.out == "" or "Usage" in ended.out) == (code, True), ended
        assert words in ended.err + ended.out
    missing = await shell.run("sessions", "show", "not-there")
    assert (missing.code, missing.err) == (4, "Error: There is no session not-there.\n")
    assert (await shell.run("sessions", "create", "no-such-template")).code == 4
    assert (await shell.run("clusters", "enrol", "local")).code == 5
    assert not (tmp_path / "local.json").exists()


async def test_what_is_not_there_in_time_is_told_and_goes_on(user_shell: Terminal) -> None:
    ended = await user_shell.run("sessions", "create", TEMPLATE, "--wait", "--timeout", "0")
    assert ended.code == 7
    assert "It goes on" in ended.err


async def test_a_user_may_not_do_what_operators_may(user_shell: Terminal) -> None:
    assert (await user_shell.run("clusters", "list")).code == 8
    assert (await user_shell.run("users", "list")).code == 8


async def test_signing_out_forgets_the_tokens_here_and_on_the_server(
    shell: Terminal, tmp_path: Path
) -> None:
    path = tmp_path / "config" / "streamspace" / "contexts.json"
    assert path.stat().st_mode & 0o777 == 0o600
    kept = json.loads(path.read_text())
    (before,) = kept["contexts"].values()
    # As if it had ended: the next command refreshes, which replaces both.
    before["tokens"]["expires_at"] = 0
    path.write_text(json.dumps(kept))
    assert (await shell.json("whoami"))["username"] == "admin"
    (after,) = json.loads(path.read_text())["contexts"].values()
    assert after["tokens"]["refresh"] != before["tokens"]["refresh"]
    assert (await shell.run("logout")).code == 0
    assert after["tokens"]["refresh"] not in path.read_text()
    assert (await shell.run("whoami")).code == 3


async def test_two_commands_at_once_share_one_refresh(shell: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "config" / "streamspace" / "contexts.json"
    kept = json.loads(path.read_text())
    next(iter(kept["contexts"].values()))["tokens"]["expires_at"] = 0
    path.write_text(json.dumps(kept))
    both = await asyncio.gather(shell.run("whoami"), shell.run("whoami"))
    assert [each.code for each in both] == [0, 0]
    assert (await shell.run("whoami")).code == 0


async def test_a_cluster_is_enrolled_into_a_file_of_ones_own(
    shell: Terminal, tmp_path: Path
) -> None:
    ended = await shell.run("clusters", "enrol", "far-away", "--file", "far.json")
    assert ended.code == 0, ended.err
    written = tmp_path / "far.json"
    assert written.stat().st_mode & 0o777 == 0o600
    enrolment = json.loads(written.read_text())
    assert enrolment["clusterId"] == "far-away"
    # This installation lets nobody in from elsewhere, which is better said now.
    assert "connect-a-cluster.md" in ended.err
    assert enrolment["credentials"] not in ended.out + ended.err
    again = await shell.run("clusters", "enrol", "other", "--file", "far.json")
    assert again.code == 5
    assert json.loads(written.read_text()) == enrolment
    renewed = await shell.run("clusters", "enrol", "far-away", "--replace", "--file", "new.json")
    assert renewed.code == 0, renewed.err
    assert (await shell.run("clusters", "revoke", "far-away")).code == 0
    assert (await shell.run("clusters", "revoke", "nowhere")).code == 4
    listed = {each["id"]: each for each in await shell.json("clusters", "list")}
    assert {"local", "far-away"} <= set(listed)
    # Without a terminal nobody can say yes, and what is let in is not removed.
    assert (await shell.run("clusters", "remove", "far-away")).code == 1
    assert (await shell.run("clusters", "remove", "local", "--yes")).code == 5
    assert (await shell.run("clusters", "remove", "nowhere", "--yes")).code == 4
    gone = await shell.run("clusters", "remove", "far-away", "--yes")
    assert (gone.code, gone.err.strip()) == (0, "far-away is removed.")
    assert {each["id"] for each in await shell.json("clusters", "list")} == set(listed) - {
        "far-away"
    }


async def test_users_are_made_disabled_and_told_apart_by_name(shell: Terminal) -> None:
    made = await shell.run(
        "users", "create", "grace", "--role", "operator", "--password-stdin", "-o", "json",
        stdin="a long passphrase\n",
    )  # fmt: skip
    assert made.data["role"] == "operator"
    assert (await shell.json("users", "disable", "grace"))["disabled"] is True
    assert (await shell.json("users", "role", "grace", "user"))["role"] == "user"
    assert (await shell.run("users", "show", "nobody")).code == 4


async def test_the_shell_completes_session_ids(
    user_shell: Terminal, user: Api, stack: Stack
) -> None:
    session = await user.launch(TEMPLATE)
    user_shell.more = {
        **user_shell.more,
        "_STREAMSPACE_COMPLETE": "complete_bash",
        "COMP_WORDS": "streamspace sessions show ",
        "COMP_CWORD": "3",
    }
    ended = await user_shell.run()
    assert session["id"] in ended.out.split()
    await user.delete(session["id"])
    await user.wait_for(session["id"], *FINAL)


async def test_a_reader_that_leaves_early_is_no_error(shell: Terminal) -> None:
    process = await asyncio.create_subprocess_shell(
        f"{STREAMSPACE} templates list -o json | head -c 1",
        env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (out, err) == (b"[", b"")


# Operators.


async def test_a_command_that_gave_up_is_seen_retried_and_discarded(
    shell: Terminal, admin: Api, tmp_path: Path
) -> None:
    folder = tmp_path / "catalog"
    folder.mkdir()
    (folder / "broken.yaml").write_text(BROKEN)
    with porcelain.init(folder) as repository:
        porcelain.add(repository, [folder / "broken.yaml"])
        porcelain.commit(repository, message=b"one", author=b"a <a@b>", committer=b"a <a@b>")
    added = await shell.run(
        "catalogs", "add", "broken", str(folder), "--wait", "-o", "json", seconds=120
    )
    assert added.data["state"] == "synced"
    assert await shell.json("catalogs", "report", added.data["id"])

    created = await shell.run("sessions", "create", "broken", "--wait")
    assert created.code == 1
    assert "is failed and will not be running" in created.err
    session = created.err.split(":")[0]

    async def letters() -> bool:
        return len((await admin.get(f"/dead-letters?sessionId={session}")).json()["items"]) == 1

    await eventually(letters, timeout=60, message="no dead letter")
    (dead,) = await shell.json("dlq", "list", "--session", session)
    assert (dead["action"], dead["state"]) == ("start_session", "open")
    shown = await shell.run("dlq", "show", dead["id"])
    assert dead["reason"] in shown.out
    retried = await shell.run("dlq", "retry", dead["id"], "-o", "json")
    assert retried.data[0]["state"] == "retried"
    assert (await shell.run("dlq", "retry", dead["id"])).code == 5

    await eventually(letters, timeout=60, message="the retry gave no letter")
    (second,) = await shell.json("dlq", "list", "--session", session)
    assert second["id"] != dead["id"]
    assert (await shell.json("dlq", "discard", second["id"]))[0]["state"] == "discarded"
    assert await shell.json("dlq", "list", "--session", session) == []
    trace = await shell.run("session", "trace", session)
    assert "dead letter retried" in trace.out


async def test_operators_see_into_the_streams(stack: Stack, shell: Terminal, user: Api) -> None:
    here = ("--data", str(stack.data))
    session = await user.launch(TEMPLATE)
    await user.wait_for(session["id"], "running")
    streams = await shell.json("streams", "info", *here)
    assert {each["name"] for each in streams} == {"COMMANDS", "EVENTS", "DLQ", "ADVISORIES"}
    lags = await shell.json("streams", "lag", *here)
    assert {"agent-local", "session-agents"} <= {each["name"] for each in lags}

    subject = f"evt.*.session.{session['id']}.>"
    told = await shell.run(
        "streams", "tail", "--subject", subject, "--from", "10m", "--no-follow", "-o", "json", *here
    )
    events = [json.loads(line) for line in told.out.splitlines()]
    assert events[0]["type"] == "session.created.v1"
    assert events[0]["payload"]["session"]["id"] == session["id"]
    assert "session.started.v1" in {event["type"] for event in events}

    fed = await shell.run(
        "replay", "feed", "--from", "10m", "--subject", subject, "--file", "events.jsonl", *here
    )
    assert fed.code == 0, fed.err
    lines = (shell.folder / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines][: len(events)] == [
        event["headers"]["ce-id"] for event in events
    ]

    saved = await shell.run("backup", "streams", "--file", "streams.tar", *here)
    assert saved.code == 0, saved.err
    checked = await shell.json("backup", "check", "--file", "streams.tar")
    assert {each["stream"] for each in checked} == {each["name"] for each in streams}
    refused = await shell.run("restore", "streams", "--file", "streams.tar", *here)
    assert refused.code == 5
    assert (await user.session(session["id"]))["state"] == "running"


async def test_a_cluster_is_driven_anew_and_its_sessions_stay(shell: Terminal, user: Api) -> None:
    session = await user.launch(TEMPLATE)
    running = await user.wait_for(session["id"], "running")
    assert (await shell.json("replay", "cluster", "local"))["commands"] >= 1

    async def told() -> bool:
        (newest,) = (await user.get(f"/sessions/{session['id']}/commands")).json()["items"]
        return (newest["attempt"], newest["state"]) == (2, "completed")

    await eventually(told, timeout=60, message="the command was not carried out again")
    after = await user.session(session["id"])
    assert (after["state"], after["startedAt"]) == ("running", running["startedAt"])
    assert (await shell.run("replay", "cluster", "nowhere")).code == 4


async def test_a_projection_is_rebuilt_beside_the_live_one_and_compared(
    stack: Stack, shell: Terminal, user: Api
) -> None:
    session = await user.launch(TEMPLATE)
    await user.wait_for(session["id"], "running")
    line = ("replay", "rebuild", "--into", "told_anew", "--discard")
    done = await shell.run(*line, "-o", "json", "--data", str(stack.data), seconds=120)
    assert done.code == 0, done.err
    assert done.data["same"] is True
    assert done.data["events"] >= 2
    assert "the comparison comes next" in done.err
    nowhere = await shell.run(*line, "--data", "nowhere")
    assert (nowhere.code, "No StreamSpace runs in nowhere" in nowhere.err) == (2, True)


async def test_nats_that_is_away_or_unknown_is_told(shell: Terminal) -> None:
    nowhere = await shell.run("streams", "info")
    assert (nowhere.code, "--nats-url" in nowhere.err) == (2, True)
    away = await shell.run("streams", "info", "--nats-url", f"nats://127.0.0.1:{free_port()}")
    assert (away.code, "cannot be reached" in away.err) == (6, True)
