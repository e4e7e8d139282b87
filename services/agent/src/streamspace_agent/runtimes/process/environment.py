"""What a session's processes see of the world: built from nothing, never inherited.

The agent's own environment holds credentials. Only the few variables named here pass
from it; then come those of the session itself, then the template's and the session's
own, which may not replace what the session depends on.
"""

from collections.abc import Mapping
from pathlib import Path

from streamspace_agent.ports import PermanentFailure
from streamspace_agent.runtimes.process.paths import SessionPlaces
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Reason, SessionSpec

SESSION_VARIABLE = "STREAMSPACE_SESSION_ID"
PORT_VARIABLE = "STREAMSPACE_PORT"
INSTALLATION_VARIABLE = "STREAMSPACE_INSTALLATION"

_PASSED_ON = ("PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ")
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
_RESERVED = {
    "HOME",
    "USER",
    "LOGNAME",
    "DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "TMPDIR",
    "XENVIRONMENT",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
}
_RESERVED_PREFIX = "STREAMSPACE_"


def marks(session: SessionId, installation: str) -> tuple[bytes, bytes]:
    """What every process of the session has in its environment, and no other has."""
    return (
        f"{SESSION_VARIABLE}={session}".encode(),
        f"{INSTALLATION_VARIABLE}={installation}".encode(),
    )


def build(
    spec: SessionSpec,
    *,
    places: SessionPlaces,
    home: Path,
    installation: str,
    user: str,
    data_dir: Path,
    inherited: Mapping[str, str],
    http_port: int | None = None,
) -> dict[str, str]:
    """The environment of the session's processes, all but `DISPLAY`.

    Args:
        spec: the session, with its own and its template's variables.
        places: its directories.
        home: its home directory.
        installation: names this agent's state directory.
        user: the system user's name.
        data_dir: where our own themes and icons are.
        inherited: the agent's environment, of which little is taken.
        http_port: the loopback port the session has to serve its web client on.

    Raises:
        PermanentFailure: the template or the session sets a variable it may not.
    """
    environment = {name: inherited[name] for name in _PASSED_ON if name in inherited}
    environment.setdefault("PATH", _DEFAULT_PATH)
    if not {"LANG", "LC_ALL"} & environment.keys():
        environment["LANG"] = "C.UTF-8"
    environment |= {
        "HOME": str(home),
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/bash",
        "TERM": "xterm-256color",
        "XAUTHORITY": str(places.xauthority),
        "XDG_RUNTIME_DIR": str(places.xdg_runtime),
        "XDG_SESSION_TYPE": "x11",
        "XDG_DATA_DIRS": f"{data_dir}:/usr/local/share:/usr/share",
        "XENVIRONMENT": str(places.configuration / "Xresources"),
        "TMPDIR": str(places.temporary),
        "NO_AT_BRIDGE": "1",
    }
    # Last, so that nothing takes them away: by them a session's processes are found.
    own_marks = {SESSION_VARIABLE: spec.session_id, INSTALLATION_VARIABLE: installation}
    if http_port is not None:
        own_marks[PORT_VARIABLE] = str(http_port)
    asked = {variable.name: variable.value for variable in spec.template_manifest.spec.env}
    refused = sorted(
        {name for name, value in asked.items() if _is_refused(name, value)}
        | {name for name, value in spec.env.items() if _is_malformed(name, value)}
        | (_RESERVED & spec.env.keys())
    )
    if refused:
        raise PermanentFailure(
            Reason.UNSUPPORTED_TEMPLATE,
            f"The template may not set {', '.join(refused)}: a session that runs as processes "
            "depends on it. Remove it from the template's env.",
        )
    return environment | asked | spec.env | own_marks


def _is_refused(name: str, value: str) -> bool:
    reserved = name in _RESERVED or name.startswith(_RESERVED_PREFIX)
    return reserved or _is_malformed(name, value)


def _is_malformed(name: str, value: str) -> bool:
    return not name or "=" in name or "\0" in name + value
