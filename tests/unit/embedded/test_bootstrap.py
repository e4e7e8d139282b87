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


def test_programs_that_are_there_need_no_package(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda program: f"/usr/bin/{program}")
    assert set(bootstrap.missing_packages(bootstrap.TO_RUN)) <= set(bootstrap.FONTS)


def test_without_the_right_it_prints_the_one_line_to_run(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "administrator", lambda: None)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda program: None)
    with pytest.raises(bootstrap.SetupError) as refused:
        bootstrap.install_debian_packages(bootstrap.TO_RUN, allowed=True)
    [line] = [line for line in str(refused.value).splitlines() if "apt-get install" in line]
    assert "tigervnc-standalone-server" in line
    assert "openbox" in line


def test_an_old_python_is_a_sentence(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda program: None)
    with pytest.raises(
        bootstrap.SetupError, match=r"Python 3\.11 or newer is needed; this is 3\.9"
    ):
        bootstrap.find_python()


def test_a_missing_node_is_a_sentence(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda program: None)
    with pytest.raises(bootstrap.SetupError, match=r"Node\.js 20 or newer"):
        bootstrap.check_node()


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
