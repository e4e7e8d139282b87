"""What a session's processes are started with: argument lists, environment, files."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from streamspace_agent.ports import PermanentFailure
from streamspace_agent.runtimes.process import desktop, environment, programs, wallpaper, xauthority
from streamspace_agent.runtimes.process.appearance import Look, write_configuration
from streamspace_agent.runtimes.process.desktop import DesktopPlan
from streamspace_agent.runtimes.process.endings import cut_long_log, tell
from streamspace_agent.runtimes.process.paths import (
    Layout,
    SessionPlaces,
    UnsafeDirectoryError,
    private_directory,
    remove_tree,
)
from streamspace_agent.runtimes.process.processes import ProcessEntry, ProcessIdentity, family
from streamspace_common.contracts.catalog import ProcessSpec, Protocol
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Reason, SessionSpec

PLACES = SessionPlaces(Path("/state/sessions/s"), Path("/run/s"))
MakeSpec = Callable[..., SessionSpec]


def installed(*names: str) -> Callable[[str], str | None]:
    return lambda name: f"/usr/bin/{name}" if name in names else None


EVERYTHING = installed("Xvnc", "openbox", "tint2", "xterm")


def plan(spec: SessionSpec, which: Any = EVERYTHING) -> DesktopPlan:
    return desktop.plan(spec, PLACES, geometry="1280x800", which=which)


def test_the_display_is_reached_by_its_socket_only(make_spec: MakeSpec) -> None:
    argv = " ".join(plan(make_spec()).x_server or ())
    assert "-rfbport -1 -rfbunixpath /run/s/rfb -rfbunixmode 0600" in argv
    assert "-nolisten tcp" in argv
    assert "-auth /state/sessions/s/xauthority" in argv


def test_an_application_alone_is_vital(make_spec: MakeSpec) -> None:
    made = plan(make_spec(process=ProcessSpec(command=("xterm", "-e", "top"))))
    assert made.application is not None
    assert made.application.argv == ("/usr/bin/xterm", "-e", "top")
    assert made.application.vital
    assert made.panel is None


def test_an_application_beside_a_panel_is_not(make_spec: MakeSpec) -> None:
    made = plan(make_spec(process=ProcessSpec(command=("xterm",), panel=True)))
    assert made.application is not None
    assert made.panel is not None
    assert not made.application.vital
    assert not made.panel.vital


def test_a_panel_is_left_out_where_it_is_not_installed(make_spec: MakeSpec) -> None:
    made = plan(
        make_spec(process=ProcessSpec(command=("xterm",), panel=True)),
        installed("Xvnc", "openbox", "xterm"),
    )
    assert made.panel is None


def test_a_web_client_needs_no_display_and_gets_its_port(make_spec: MakeSpec) -> None:
    process = ProcessSpec(command=("server", "--listen", "localhost:{port}"), display=False)
    spec = make_spec(process=process, protocol=Protocol.HTTP)
    made = desktop.plan(
        spec, PLACES, geometry="1280x800", which=installed("server"), http_port=4711
    )
    assert made.x_server is None
    assert made.window_manager is None
    assert made.application is not None
    assert made.application.argv == ("/usr/bin/server", "--listen", "localhost:4711")
    assert made.application.vital


def test_all_missing_programs_are_named_at_once(make_spec: MakeSpec) -> None:
    with pytest.raises(PermanentFailure) as failed:
        plan(make_spec(), installed("openbox"))
    assert failed.value.reason is Reason.MISSING_PROGRAM
    assert "Xvnc, xterm are not installed" in str(failed.value)
    assert "apt-get install -y tigervnc-standalone-server xterm" in str(failed.value)


def test_trouble_is_told_before_anybody_starts_anything() -> None:
    assert programs.missing_for_any_session(EVERYTHING) is None
    assert "openbox" in (programs.missing_for_any_session(installed("Xvnc")) or "")


@pytest.mark.parametrize(
    "fields",
    [
        {"process": None},
        {"process": ProcessSpec(command=(), window_manager=False)},
        {"process": ProcessSpec(command=("xterm",), display=False)},
        {"process": ProcessSpec(command=()), "protocol": Protocol.HTTP},
    ],
)
def test_a_template_that_is_not_for_processes_is_refused(
    make_spec: MakeSpec, fields: dict[str, Any]
) -> None:
    with pytest.raises(PermanentFailure) as failed:
        plan(make_spec(**fields))
    assert failed.value.reason is Reason.UNSUPPORTED_TEMPLATE


def build(spec: SessionSpec, **inherited: str) -> dict[str, str]:
    return environment.build(
        spec,
        places=PLACES,
        home=Path("/state/homes/ada"),
        installation="i1",
        user="somebody",
        data_dir=Path("/share"),
        inherited=inherited,
    )


def test_little_is_inherited(make_spec: MakeSpec) -> None:
    made = build(
        make_spec(), PATH="/bin", LANG="de_DE.UTF-8", SECRET="s", DISPLAY=":7", HOME="/root"
    )
    assert (made["PATH"], made["LANG"]) == ("/bin", "de_DE.UTF-8")
    assert "SECRET" not in made
    assert "DISPLAY" not in made
    assert made["HOME"] == "/state/homes/ada"


def test_the_sessions_own_variables_win_over_the_templates(make_spec: MakeSpec) -> None:
    made = build(make_spec(template_env={"A": "1", "B": "1"}, env={"B": "2"}))
    assert (made["A"], made["B"]) == ("1", "2")


RESERVED = ["HOME", "DISPLAY", "XAUTHORITY", "LD_PRELOAD", "", "A=B"]


@pytest.mark.parametrize("name", [*RESERVED, "STREAMSPACE_SESSION_ID"])
def test_a_template_may_not_set_what_the_session_depends_on(make_spec: MakeSpec, name: str) -> None:
    with pytest.raises(PermanentFailure) as failed:
        build(make_spec(template_env={name: "x"}))
    assert failed.value.reason is Reason.UNSUPPORTED_TEMPLATE


@pytest.mark.parametrize("name", RESERVED)
def test_nor_may_the_session_itself(make_spec: MakeSpec, name: str) -> None:
    with pytest.raises(PermanentFailure):
        build(make_spec(env={name: "x"}))


def test_what_the_control_plane_tells_the_session_is_there_but_never_hides_its_marks(
    make_spec: MakeSpec,
) -> None:
    made = build(make_spec(env={"STREAMSPACE_USER": "ada", "STREAMSPACE_SESSION_ID": "other"}))
    assert made["STREAMSPACE_USER"] == "ada"
    assert made["STREAMSPACE_SESSION_ID"] == "ada-terminal-00000001"


def test_every_process_carries_the_marks_it_is_found_by(make_spec: MakeSpec) -> None:
    spec = make_spec()
    made = {f"{name}={value}".encode() for name, value in build(spec).items()}
    assert set(environment.marks(spec.session_id, "i1")) <= made


def entry(
    pid: int, parent: int = 1, *, session: int | None = None, marked: bool = False
) -> ProcessEntry:
    leader = session or pid
    return ProcessEntry(ProcessIdentity(pid, pid * 10), parent, leader, leader, marked)


def pids(members: set[ProcessIdentity]) -> set[int]:
    return {member.pid for member in members}


def test_a_family_is_the_marked_the_roots_their_sessions_and_all_descendants() -> None:
    table = [
        entry(100),
        entry(101, 100, session=100),
        entry(102, 1, session=100),
        entry(103, 101),
        entry(200, marked=True),
        entry(201, 200),
        entry(300),
    ]
    assert pids(family(table, [ProcessIdentity(100, 1000)])) == {100, 101, 102, 103, 200, 201}


def test_a_session_outlives_the_process_that_led_it() -> None:
    table = [entry(101, 1, session=100)]
    assert pids(family(table, [ProcessIdentity(100, 1000)])) == {101}


def test_a_stranger_with_a_used_id_is_no_family() -> None:
    table = [entry(100), entry(101, 100, session=100)]
    assert family(table, [ProcessIdentity(100, 7)]) == set()


def test_an_end_is_told_in_words(tmp_path: Path) -> None:
    log = tmp_path / "application.log"
    assert tell(desktop.APPLICATION, 0, log) == "The application was closed."
    assert tell(desktop.DISPLAY, -9, log) == "The display server was killed by SIGKILL."
    log.write_text("one\n\ntwo\nthree\nfour\nfive\n")
    assert tell(desktop.WINDOW_MANAGER, 2, log) == (
        "The window manager failed with exit code 2. Its last words: two | three | four | five"
    )


def test_a_long_log_keeps_its_end(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 5_000_000 + b"the end")
    cut_long_log(log)
    assert log.stat().st_size == 256 * 1024
    assert log.read_bytes().endswith(b"the end")


def test_a_cookie_is_good_for_any_display() -> None:
    content = xauthority.file_content(b"0123456789abcdef")
    assert content.startswith(struct.pack(">HHH", 65535, 0, 0))
    assert content.endswith(struct.pack(">H", 16) + b"0123456789abcdef")


def test_the_wallpaper_fits_into_one_request() -> None:
    assert len(wallpaper.strip()) == wallpaper.WIDTH * wallpaper.HEIGHT * 4 < 4 * 65535 - 24


@pytest.mark.parametrize("panel", [True, False])
def test_the_configuration_is_well_formed_whatever_the_title(tmp_path: Path, panel: bool) -> None:
    write_configuration(tmp_path, Look('A & B <"x"> $HOME_x', panel), EVERYTHING)
    for name in ("openbox.xml", "menu.xml"):
        ET.parse(tmp_path / name)
    assert str(tmp_path / "menu.xml") in (tmp_path / "openbox.xml").read_text()
    assert ("<maximized>yes" in (tmp_path / "openbox.xml").read_text()) is not panel
    assert "launcher_item_app" in (tmp_path / "tint2rc").read_text()


def test_a_long_state_directory_gets_a_short_place_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = tmp_path / "r"
    offered.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    layout = Layout.prepare(tmp_path / ("long" * 15))
    try:
        places = layout.session(SessionId("a" * 52))
        assert len(str(places.xdg_runtime / "pulse" / "native")) <= 107
        assert len(str(places.rfb)) <= 107
        assert layout.sockets.stat().st_mode & 0o777 == 0o700
    finally:
        remove_tree(layout.sockets)


def test_two_installations_never_share_sockets(tmp_path: Path) -> None:
    first, second = (Layout.prepare(tmp_path / f"{n}{'x' * 60}") for n in "ab")
    try:
        assert first.sockets != second.sockets
        assert first.installation != second.installation
    finally:
        remove_tree(first.sockets)
        remove_tree(second.sockets)


def test_a_place_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("open", "link"):
        with pytest.raises(UnsafeDirectoryError):
            private_directory(tmp_path / name)


@pytest.mark.parametrize("home", ["", ".", "..", "../other", "a/b", "/etc", ".hidden"])
def test_a_home_is_never_outside_the_homes(tmp_path: Path, make_spec: MakeSpec, home: str) -> None:
    layout = Layout(tmp_path, tmp_path, "i")
    with pytest.raises(ValueError, match="home"):
        layout.home(make_spec(home=home))
