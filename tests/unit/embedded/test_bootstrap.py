"""Set-up: what is current is left alone, and what cannot be done is said in one line."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "libs/embedded/bootstrap.py"


@pytest.fixture
def bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bootstrap"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bootstrap"]


def test_it_needs_nothing_but_the_standard_library():
    program = f"import runpy; runpy.run_path({str(SCRIPT)!r})"
    subprocess.run([sys.executable, "-S", "-I", "-c", program], check=True)


def test_what_is_there_needs_no_package(bootstrap, tmp_path, monkeypatch):
    (tmp_path / "lib" / "deep").mkdir(parents=True)
    (tmp_path / "lib" / "deep" / "libfound.so.1").touch()
    monkeypatch.setattr(
        bootstrap.shutil, "which", lambda program, **_: program if program == "found" else None
    )
    wanted = {
        "found": "program",
        f"{tmp_path}/lib/*/libfound.so.1": "library",
        "lost": "lost-program",
        f"{tmp_path}/lib/*/liblost.so.1": "lost-library",
    }
    assert bootstrap.missing_packages(wanted) == ["lost-library", "lost-program"]


def test_without_the_right_it_prints_the_one_line_to_run(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "administrator", lambda: None)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda program, **_: None)
    with pytest.raises(bootstrap.SetupError) as refused:
        bootstrap.install_debian_packages(bootstrap.TO_RUN, allowed=True)
    [line] = [line for line in str(refused.value).splitlines() if "apt-get install" in line]
    assert "tigervnc-standalone-server" in line
    assert "openbox" in line


@pytest.mark.parametrize(
    ("user", "sudo", "told"),
    [
        (1000, "/usr/bin/sudo", "once, then try again:\n  sudo apt-get update && sudo apt-get"),
        (1000, None, "once as root, then try again:\n  apt-get update && apt-get"),
        (0, "/usr/bin/sudo", "once, then try again:\n  apt-get update && apt-get"),
    ],
)
def test_the_one_line_is_one_that_this_person_can_run(bootstrap, monkeypatch, user, sudo, told):
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: user)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda program: sudo)
    assert told in bootstrap.by_hand(["xterm"])


def test_a_server_is_found_though_only_roots_path_leads_to_it(bootstrap, tmp_path, monkeypatch):
    assert "/usr/sbin" in bootstrap.SEARCH_PATH.split(":")
    (tmp_path / "haproxy").touch(mode=0o755)
    monkeypatch.setattr(bootstrap, "SEARCH_PATH", str(tmp_path))
    assert "haproxy" not in bootstrap.missing_packages(bootstrap.TO_BENCH)


def test_tests_install_no_server_that_debian_starts_by_itself(bootstrap):
    assert "haproxy" not in bootstrap.TO_TEST.values()


def test_debians_python_without_venv_gets_it(bootstrap, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / "none")
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None)
    assert "python3-venv" in bootstrap.missing_packages({})


def test_what_a_person_must_install_is_said_before_anything_else_is(
    bootstrap, tmp_path, monkeypatch, capsys
):
    def no_node() -> None:
        raise bootstrap.SetupError("Node.js 20 or newer")

    step = bootstrap.Step("Web app", "none", lambda: "", lambda: None, check=no_node)
    monkeypatch.setattr(bootstrap, "STAMPS", tmp_path)
    monkeypatch.setattr(bootstrap, "LOG", tmp_path / "cache" / "setup.log")
    monkeypatch.setattr(bootstrap, "steps", lambda **_: [step])
    monkeypatch.setattr(bootstrap.sys, "argv", ["bootstrap.py", "run"])
    monkeypatch.setattr(bootstrap, "missing_packages", lambda wanted: pytest.fail("too late"))
    with pytest.raises(SystemExit, match=r"Node\.js 20 or newer"):
        bootstrap.main()


def test_an_old_python_is_a_sentence(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda program, **_: None)
    with pytest.raises(
        bootstrap.SetupError, match=r"Python 3\.11 or newer is needed; this is 3\.9"
    ):
        bootstrap.find_python()


def test_a_missing_node_is_a_sentence(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda program, **_: None)
    with pytest.raises(bootstrap.SetupError, match=r"Node\.js 20\.19, 22\.12 or newer"):
        bootstrap.check_node()


@pytest.mark.parametrize(
    ("version", "serves"),
    [
        ("v18.20.4", False),
        ("v20.18.3", False),
        ("v20.19.0", True),
        ("v21.7.3", False),
        ("v22.11.0", False),
        ("v22.12.0", True),
        ("v24.0.0", True),
    ],
)
def test_a_node_that_cannot_build_the_web_app_is_told_apart(bootstrap, version, serves):
    assert bootstrap.node_serves(version) is serves


def test_a_failing_command_tells_its_last_words(bootstrap, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "LOG", tmp_path / "cache" / "setup.log")
    with pytest.raises(bootstrap.SetupError, match="no such thing"):
        bootstrap.call(sys.executable, "-c", "import sys; sys.exit('no such thing')")


def test_a_step_is_current_until_what_it_is_made_from_changes(bootstrap, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "STAMPS", tmp_path / "stamps")
    inputs = ["one"]
    step = bootstrap.Step("Something", "something", lambda: inputs[0], lambda: None)
    assert not step.current
    step.done()
    assert step.current
    inputs[0] = "two"
    assert not step.current


def test_everything_that_is_packaged_is_installed(bootstrap):
    found = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("*/*/pyproject.toml")}
    assert set(bootstrap.PACKAGES) == found


def test_an_agent_alone_needs_no_web_app(bootstrap):
    assert [step.title for step in bootstrap.steps(develop=False, web=False)] == ["Python packages"]
    assert "Web app" in [step.title for step in bootstrap.steps(develop=False)]
