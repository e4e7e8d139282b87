"""How a desktop looks and what its menus offer: the configuration files of one session.

The desktop's theme, panel and colours are ours and lie in `assets/`, so a desktop looks
the same whatever the machine has installed. A template whose application is the whole
desktop (no panel) gets it maximised; a desktop with a panel places windows in the middle.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template
from xml.sax.saxutils import escape

from streamspace_agent.runtimes.process.programs import Which

ASSETS = Path(__file__).parent / "assets"
DATA_DIR = ASSETS / "share"
"""Has our window theme, as XDG_DATA_DIRS expects it."""

_TERMINAL = "terminal.desktop"
_MENU = (
    ("Terminal", ("xterm",)),
    ("Files", ("pcmanfm", "thunar", "nautilus", "dolphin")),
    ("Web Browser", ("firefox-esr", "firefox", "chromium", "google-chrome")),
    ("Text Editor", ("mousepad", "gedit", "featherpad", "kate")),
)
_SYSTEM_LAUNCHERS = ("pcmanfm", "thunar", "firefox-esr", "firefox", "chromium", "mousepad")
_APPLICATIONS = Path("/usr/share/applications")
_MAXIMIZED = '<application type="normal"><maximized>yes</maximized></application>'


@dataclass(frozen=True)
class Look:
    """What the desktop is for."""

    title: str
    panel: bool


def write_configuration(directory: Path, look: Look, which: Which = shutil.which) -> None:
    """Write the files that `desktop` names on the programs' command lines."""
    menu = directory / "menu.xml"
    contents = {
        "openbox.xml": _fill(
            "openbox.xml",
            terminal="xterm",
            menu=escape(str(menu)),
            applications="" if look.panel else _MAXIMIZED,
        ),
        "menu.xml": _fill("menu.xml", title=_attribute(look.title), items=_menu_items(which)),
        _TERMINAL: _fill(_TERMINAL, icon=str(ASSETS / "terminal.svg")),
        "tint2rc": _fill("tint2rc", launchers=_launchers(directory, which)),
        "Xresources": _fill("Xresources"),
    }
    for name, content in contents.items():
        (directory / name).write_text(content)


def _fill(name: str, **values: str) -> str:
    return Template((ASSETS / "templates" / name).read_text()).substitute(values)


def _attribute(text: str) -> str:
    # Openbox takes an underscore in a label as a keyboard mark.
    return escape(text.replace("_", "__"), {'"': "&quot;"})


def _menu_items(which: Which) -> str:
    lines = []
    for label, programs in _MENU:
        found = next((program for program in programs if which(program)), None)
        if found:
            lines.append(
                f'    <item label="{label}"><action name="Execute">'
                f"<command>{found}</command></action></item>"
            )
    return "\n".join(lines)


def _launchers(directory: Path, which: Which) -> str:
    entries = [directory / _TERMINAL] if which("xterm") else []
    entries += [
        entry
        for name in _SYSTEM_LAUNCHERS
        if which(name) and (entry := _APPLICATIONS / f"{name}.desktop").exists()
    ]
    return "\n".join(f"launcher_item_app = {entry}" for entry in entries)
