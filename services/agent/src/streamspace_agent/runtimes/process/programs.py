"""Which programs a session needs, whether they are there, and how to get them."""

import shutil
from collections.abc import Callable, Iterable

from streamspace_agent.ports import PermanentFailure
from streamspace_common.contracts.sessions import Reason

Which = Callable[[str], str | None]
"""Finds a program on the path, as `shutil.which`."""

X_SERVER = "Xvnc"
WINDOW_MANAGER = "openbox"
PANEL = "tint2"
TERMINALS = ("xterm", "x-terminal-emulator")

_PACKAGES = {
    X_SERVER: "tigervnc-standalone-server",
    WINDOW_MANAGER: "openbox",
    PANEL: "tint2",
    "xterm": "xterm",
    "x-terminal-emulator": "xterm",
    "firefox": "firefox-esr",
    "firefox-esr": "firefox-esr",
    "chromium": "chromium",
    "pcmanfm": "pcmanfm",
    "mousepad": "mousepad",
    "libreoffice": "libreoffice",
    "gimp": "gimp",
}
"""Debian's packages of programs that templates name often; others are named alike."""


def require(programs: Iterable[str], which: Which = shutil.which) -> dict[str, str]:
    """The path of each program.

    Raises:
        PermanentFailure: some are missing; says with what line to install them.
    """
    found = {name: which(name) for name in programs}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise PermanentFailure(Reason.MISSING_PROGRAM, explain(missing))
    return {name: path for name, path in found.items() if path is not None}


def explain(missing: Iterable[str]) -> str:
    """What is missing, and the line that installs it on Debian."""
    names = list(missing)
    packages = sorted({_PACKAGES.get(name, name) for name in names if "/" not in name})
    what = ", ".join(names)
    verb = "is" if len(names) == 1 else "are"
    text = f"{what} {verb} not installed on this machine."
    if packages:
        text += f" Install with: sudo apt-get install -y {' '.join(packages)}"
    return text


def missing_for_any_session(which: Which = shutil.which) -> str | None:
    """Why no session with a desktop can start here; None when one can."""
    missing = [name for name in (X_SERVER, WINDOW_MANAGER) if which(name) is None]
    return explain(missing) if missing else None
