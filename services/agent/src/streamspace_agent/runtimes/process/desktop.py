"""The programs of one session and their argument lists: pure, made before anything runs.

Most sessions are a desktop. One that serves a web client gets a loopback port of its own
and, where its template says so, no display at all.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from streamspace_agent.ports import PermanentFailure
from streamspace_agent.runtimes.process import programs
from streamspace_agent.runtimes.process.paths import SessionPlaces
from streamspace_agent.runtimes.process.programs import Which
from streamspace_common.contracts.catalog import ProcessSpec
from streamspace_common.contracts.sessions import Reason, SessionSpec

DISPLAY = "display"
WINDOW_MANAGER = "window-manager"
PANEL = "panel"
APPLICATION = "application"
PORT_MARK = "{port}"
"""Stands for the session's port in a command that serves HTTP."""


@dataclass(frozen=True)
class Program:
    """One program to start. The session ends when a `vital` one does."""

    role: str
    argv: tuple[str, ...]
    vital: bool


@dataclass(frozen=True)
class DesktopPlan:
    """What a session runs, in the order it is started."""

    title: str
    x_server: tuple[str, ...] | None
    window_manager: Program | None
    panel: Program | None
    application: Program | None
    http_port: int | None = None
    """Where the application has to answer HTTP; None where it only shows windows."""
    http_path: str = "/"


def plan(
    spec: SessionSpec,
    places: SessionPlaces,
    *,
    geometry: str,
    which: Which = shutil.which,
    http_port: int | None = None,
) -> DesktopPlan:
    """Choose the programs.

    An application that is the whole desktop ends the session when it ends. With a panel
    it may be closed like any other window, and be started again from panel or menu.

    Args:
        spec: the session.
        places: its directories.
        geometry: the size of its first picture.
        which: finds programs.
        http_port: the loopback port of a session that serves a web client.

    Raises:
        PermanentFailure: the template cannot run as processes, or a program is missing.
    """
    process = _process_of(spec)
    template = spec.template_manifest.spec
    title = template.display_name or spec.template_id
    wanted = [programs.X_SERVER] if process.display else []
    if process.window_manager:
        wanted.append(programs.WINDOW_MANAGER)
    if process.command:
        wanted.append(process.command[0])
    found = programs.require(wanted, which)
    x_server = None
    if process.display:
        x_server = _x_server(found[programs.X_SERVER], places, title, geometry)
    return DesktopPlan(
        title=title,
        x_server=x_server,
        window_manager=_window_manager(process, found, places.configuration),
        panel=_panel(process, places.configuration, which),
        application=_application(process, found, http_port),
        http_port=http_port,
        http_path=template.connection.path if template.connection else "/",
    )


def _process_of(spec: SessionSpec) -> ProcessSpec:
    template = spec.template_manifest.spec
    if template.process is None:
        raise PermanentFailure(
            Reason.UNSUPPORTED_TEMPLATE,
            f"The template {template.display_name!r} says nothing of processes (spec.process); "
            "it needs a cluster that runs containers.",
        )
    process = template.process
    if template.process_serves_http:
        if not process.command:
            raise PermanentFailure(
                Reason.UNSUPPORTED_TEMPLATE,
                f"The template {template.display_name!r} is reached by HTTP, and has no command "
                "that would serve it.",
            )
    elif not process.display:
        raise PermanentFailure(
            Reason.UNSUPPORTED_TEMPLATE,
            f"The template {template.display_name!r} has no display, so it has to be reached by "
            "HTTP (spec.connection).",
        )
    if not process_shows_something(process):
        raise PermanentFailure(
            Reason.UNSUPPORTED_TEMPLATE,
            f"The template {template.display_name!r} has neither a command nor a window manager.",
        )
    if process.display:
        return process
    return process.model_copy(update={"window_manager": False, "panel": False})


def process_shows_something(process: ProcessSpec) -> bool:
    return bool(process.command) or process.window_manager


def _x_server(path: str, places: SessionPlaces, title: str, geometry: str) -> tuple[str, ...]:
    return (
        path,
        *("-geometry", geometry),
        *("-depth", "24"),
        *("-dpi", "96"),
        *("-desktop", title),
        # Viewers come through a private unix socket; who may view is decided before.
        *("-SecurityTypes", "None"),
        *("-rfbport", "-1"),
        *("-rfbunixpath", str(places.rfb)),
        *("-rfbunixmode", "0600"),
        # Every viewer comes from the same address: one that breaks off must not shut
        # out the others.
        "-UseBlacklist=0",
        "-AlwaysShared",
        *("-IdleTimeout", "0"),
        *("-nolisten", "tcp"),
        *("-auth", str(places.xauthority)),
        # Keep the desktop when its last window closes.
        "-noreset",
        # The primary selection changes with every marked word; only real copies travel.
        "-SendPrimary=0",
        # A first picture in the colour of our wallpaper, not the weave of old X servers.
        "-br",
    )


def _window_manager(
    process: ProcessSpec, found: dict[str, str], configuration: Path
) -> Program | None:
    if not process.window_manager:
        return None
    file = str(configuration / "openbox.xml")
    argv = (found[programs.WINDOW_MANAGER], "--sm-disable", "--config-file", file)
    return Program(WINDOW_MANAGER, argv, vital=True)


def _panel(process: ProcessSpec, configuration: Path, which: Which) -> Program | None:
    path = which(programs.PANEL)
    if not (process.panel and process.window_manager and path):
        return None
    return Program(PANEL, (path, "-c", str(configuration / "tint2rc")), vital=False)


def _application(
    process: ProcessSpec, found: dict[str, str], http_port: int | None
) -> Program | None:
    if not process.command:
        return None
    program, *arguments = process.command
    if http_port is not None:
        arguments = [each.replace(PORT_MARK, str(http_port)) for each in arguments]
    # Closing the window of a desktop's application is no end; that of a server is.
    stays = process.panel and process.window_manager and http_port is None
    return Program(APPLICATION, (found[program], *arguments), vital=not stays)
