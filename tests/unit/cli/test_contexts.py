"""The file with servers and sign-ins."""

import time
from pathlib import Path

import pytest

from streamspace_cli.contexts import (
    Context,
    Contexts,
    Tokens,
    default_path,
    name_for,
    normal_url,
    write_private,
)
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Format, Printer
from streamspace_cli.run import Run

HOME = Context("home", "http://localhost:8080", "ada", tokens=Tokens("a", "r", 1.0))
WORK = Context("work", "https://work.example", "ada", ca_file="/ca.pem")


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    return Contexts(tmp_path / "streamspace" / "contexts.json")


def run(tmp_path: Path, context_name: str | None = None, **environment: str) -> Run:
    given = {"XDG_CONFIG_HOME": str(tmp_path), **environment}
    return Run(Printer(Format.TABLE), context_name, environment=given)


def test_the_first_context_is_used_and_others_only_when_asked_for(contexts: Contexts):
    contexts.save(HOME)
    contexts.save(WORK)
    assert contexts.all() == ({"home": HOME, "work": WORK}, "home")
    contexts.use("work")
    assert contexts.all()[1] == "work"


def test_tokens_are_for_their_owner_alone(contexts: Contexts):
    contexts.save(HOME)
    assert contexts.path.stat().st_mode & 0o777 == 0o600
    assert contexts.path.parent.stat().st_mode & 0o777 == 0o700
    assert "a" not in repr(HOME.tokens).replace("expires_at", "").replace("Tokens", "")


def test_a_deleted_context_is_gone_and_not_in_use(contexts: Contexts):
    contexts.save(HOME)
    contexts.save(WORK)
    contexts.delete("home")
    assert contexts.all() == ({"work": WORK}, None)
    with pytest.raises(CliError, match="known: work") as refused:
        contexts.use("home")
    assert refused.value.code is ExitCode.NOT_FOUND


def test_a_broken_file_is_told_with_what_to_do(contexts: Contexts):
    contexts.path.parent.mkdir(parents=True)
    for broken in ("{", "[]", '{"contexts": {"x": 1}}', '{"contexts": {"x": {}}}'):
        contexts.path.write_text(broken)
        with pytest.raises(CliError, match="cannot be read") as refused:
            contexts.all()
        assert refused.value.hint == "Remove it and sign in again."


def test_a_file_is_never_readable_by_others(tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("streamspace.example.com", "https://streamspace.example.com"),
        ("https://example.com/desks/", "https://example.com/desks"),
    ],
)
def test_addresses_get_the_scheme_that_fits(given: str, url: str):
    assert normal_url(given) == url


@pytest.mark.parametrize(
    "given", ["ftp://x", "http://", "http://x:port", "http://u:p@x", "", "x?y"]
)
def test_what_is_no_address_is_refused(given: str):
    with pytest.raises(CliError, match="not the address") as refused:
        normal_url(given)
    assert refused.value.code is ExitCode.USAGE


def test_the_file_is_where_xdg_says(tmp_path: Path):
    assert default_path({"XDG_CONFIG_HOME": str(tmp_path)}).parents[1] == tmp_path
    assert default_path({"XDG_CONFIG_HOME": "relative"}).parents[1] == Path.home() / ".config"
    assert name_for("https://example.com:8443/x") == "example.com:8443"


def test_the_option_comes_before_the_environment_and_that_before_the_context_in_use(tmp_path):
    contexts = run(tmp_path).contexts
    contexts.save(HOME)
    contexts.save(WORK)
    assert run(tmp_path).context() == HOME
    assert run(tmp_path, STREAMSPACE_URL="https://work.example/").context() == WORK
    assert run(tmp_path, "home", STREAMSPACE_URL="https://work.example").context() == HOME
    with pytest.raises(CliError, match="no context nowhere"):
        run(tmp_path, "nowhere").context()


def test_url_and_token_of_the_environment_need_no_file(tmp_path: Path):
    found = run(tmp_path, STREAMSPACE_URL="localhost:1", STREAMSPACE_TOKEN="t").context()
    assert (found.url, found.tokens) == ("http://localhost:1", Tokens("t"))
    with pytest.raises(CliError, match="No server is known yet") as refused:
        run(tmp_path).context()
    assert refused.value.code is ExitCode.NOT_SIGNED_IN


def test_an_access_token_is_given_up_before_it_ends():
    answer = {"accessToken": "a", "refreshToken": "r", "expiresIn": 900}
    assert not Tokens.of(answer).stale
    assert Tokens("a", "r", time.time() + 10).stale
