"""How the process ends: exit codes, one sentence, never a trace."""

import json
from pathlib import Path

import httpx2
import pytest
import typer

from streamspace_cli import complete, main
from streamspace_cli.contexts import Context, Contexts, Tokens, default_path
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.run import Run, command, group


@pytest.fixture(autouse=True)
def own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Contexts:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("STREAMSPACE_URL", "STREAMSPACE_TOKEN", "STREAMSPACE_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    return Contexts(default_path({"XDG_CONFIG_HOME": str(tmp_path)}))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    app = group("For tests.")
    command(app)(other)
    monkeypatch.setattr(main, "app", app)
    return app


def other(run: Run) -> None:
    """Another one."""


def ends_with(app: typer.Typer, error: BaseException) -> None:
    def fails(run: Run) -> None:
        """Fail."""
        raise error

    command(app)(fails)


@pytest.mark.parametrize(
    "line",
    [["--nonsense"], ["nonsense"], ["sessions", "show"], ["sessions", "list", "-o", "xml"]],
)
def test_a_wrong_command_line_ends_with_2_and_says_where_help_is(line, capsys):
    assert main.run(line) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert "-h" in err
    assert out == ""


def test_version_and_help_end_with_0(capsys):
    assert main.run(["--version"]) == ExitCode.OK
    assert main.run(["sessions", "--help"]) == ExitCode.OK
    assert "create" in capsys.readouterr().out


def test_singular_names_work_too(capsys):
    assert main.run(["session", "--help"]) == ExitCode.OK
    assert main.run(["contexts", "list"]) == ExitCode.OK


def test_every_command_has_its_help_and_the_shared_options(capsys):
    for name in ("login", "whoami"):
        assert main.run([name, "--help"]) == ExitCode.OK
        assert "--output" in capsys.readouterr().out


def test_an_error_is_one_sentence_on_stderr_and_its_code(commands, capsys):
    error = CliError("It is broken.", ExitCode.CONFLICT, hint="Mend it.", more={"why": "so"})
    ends_with(commands, error)
    assert main.run(["fails"]) == ExitCode.CONFLICT
    assert capsys.readouterr() == ("", "Error: It is broken. Mend it.\n")
    assert main.run(["fails", "--debug"]) == ExitCode.CONFLICT
    assert "debug: why: so" in capsys.readouterr().err


def test_a_fault_of_ours_is_told_without_a_trace(commands, capsys, monkeypatch):
    ends_with(commands, RuntimeError("oops"))
    monkeypatch.setattr("sys.argv", ["streamspace", "fails"])
    assert main.run(["fails"]) == ExitCode.FAILED
    err = capsys.readouterr().err
    assert "RuntimeError: oops" in err
    assert "Traceback" not in err


def test_ctrl_c_is_quiet(commands, capsys):
    ends_with(commands, KeyboardInterrupt())
    assert main.run(["fails"]) == ExitCode.INTERRUPTED
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_is_gone_is_no_reason_to_complain(commands, capsys):
    ends_with(commands, BrokenPipeError(32, "Broken pipe"))
    assert main.run(["fails"]) in {ExitCode.BROKEN_PIPE, ExitCode.FAILED}
    assert "Traceback" not in capsys.readouterr().err


def test_context_names_are_completed(own_config: Contexts):
    own_config.save(Context("home", "http://localhost:1"))
    own_config.save(Context("work", "http://localhost:2"))
    assert complete.contexts("w") == [("work", "http://localhost:2")]


def test_session_ids_are_completed_from_the_server(own_config: Contexts, monkeypatch):
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"] == "Bearer t"
        items = [{"id": "ada-desktop-1", "state": "running"}, {"id": "bob-1", "state": "failed"}]
        return httpx2.Response(200, json={"items": items})

    own_config.save(Context("home", "http://localhost:1", tokens=Tokens("t")))
    monkeypatch.setattr(
        "streamspace_cli.api.open_client",
        lambda context, timeout: httpx2.Client(
            base_url="http://here/api/v1/", transport=httpx2.MockTransport(answer)
        ),
    )
    assert complete.sessions("ada") == [("ada-desktop-1", "running")]


def test_a_server_that_is_away_completes_nothing_and_says_nothing(own_config, capsys):
    assert complete.sessions("") == []
    own_config.save(Context("home", "http://127.0.0.1:1", tokens=Tokens("t")))
    assert complete.sessions("") == []
    assert capsys.readouterr() == ("", "")


def test_what_every_command_takes_may_stand_before_it_too(own_config, capsys, monkeypatch):
    for name in ("STREAMSPACE_OUTPUT", "STREAMSPACE_CONTEXT", "STREAMSPACE_DEBUG"):
        monkeypatch.setenv(name, "")  # Put back when the test ends.
        monkeypatch.delenv(name)
    own_config.save(Context("home", "http://localhost:1"))
    assert main.run(["-o", "json", "context", "list"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)[0]["name"] == "home"
    assert main.run(["--context", "nowhere", "sessions", "list"]) == ExitCode.NOT_FOUND
    assert "nowhere" in capsys.readouterr().err
    assert main.run(["-o", "xml", "context", "list"]) == ExitCode.USAGE
