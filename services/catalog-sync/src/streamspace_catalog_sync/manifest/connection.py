"""How a template is reached: from the many forms manifests have, to one `connection`.

Manifests say it as `connection` (ours), `vnc`, `kasmvnc`, `webapp`, or only by a
port. Then the correction table has the last word: what the image really does
counts more than what a manifest believes.
"""

from dataclasses import dataclass
from typing import Any

from streamspace_catalog_sync.manifest.corrections import ImageKind, KnownImage
from streamspace_catalog_sync.manifest.findings import Findings, RefusedError
from streamspace_common.contracts.catalog import Protocol

RFB_PORTS = range(5900, 6000)
PROCESS_PORT = 5900
"""Stands for the display of a process session, which listens on a socket, not a port."""

_WEB_WORDS = frozenset(
    {"http", "https", "web", "websocket", "kasmvnc", "selkies", "guacamole", "novnc"}
)
_RFB_WORDS = frozenset({"vnc", "rfb", "raw"})


@dataclass(frozen=True)
class Declared:
    """What a manifest says about how it is reached, and in which of its fields."""

    protocol: Protocol
    port: int
    path: str
    field: str


def connect(spec: dict[str, Any], known: KnownImage | None, findings: Findings) -> bool:
    """Give `spec` its canonical `connection`, and ports that go with it.

    Returns:
        Whether the declared port is the one the image is known to listen on; true
        where nothing is known.

    Raises:
        RefusedError: a field that says how it is reached has a value it cannot have.
    """
    declared = _declared(spec)
    actual = _corrected(declared, spec, known, findings)
    if actual is None:
        spec.pop("connection", None)
        return declared is None or known is None
    written = spec.get("connection")
    spec["connection"] = {
        **(written if isinstance(written, dict) else {}),
        "protocol": actual.protocol.value,
        "port": actual.port,
        "path": actual.path,
    }
    if declared is not None and declared == actual and declared.field != "spec.connection":
        findings.noted(f"{declared.field} read as {declared.protocol} on port {declared.port}")
    _agree_on_ports(spec, declared, actual)
    return declared is None or declared.port == actual.port


def _corrected(
    declared: Declared | None, spec: dict[str, Any], known: KnownImage | None, findings: Findings
) -> Declared | None:
    if known is None:
        return declared
    if known.port is None:
        if declared is not None:
            findings.corrected(
                f"{declared.field}: the image {known.repository} serves nothing on port "
                f"{declared.port} that a viewer could show"
            )
        return None
    port = _custom_port(spec, known) or known.port
    path = declared.path if declared else "/"
    if declared is None:
        findings.noted(f"{known.repository} is known to serve {known.protocol} on port {port}")
    elif declared.port != port:
        findings.corrected(
            f"{declared.field}: the image {known.repository} listens on port {port}, "
            f"not {declared.port}"
        )
    if declared is not None and declared.protocol is not known.protocol:
        findings.corrected(
            f"{declared.field}: the image {known.repository} serves a web client, not raw VNC"
        )
    return Declared(known.protocol, port, path, declared.field if declared else "")


def _custom_port(spec: dict[str, Any], known: KnownImage) -> int | None:
    """Desktop images take their port from `CUSTOM_PORT`, so a manifest may move it."""
    if known.kind is not ImageKind.DESKTOP:
        return None
    for entry in spec.get("env") or ():
        value = entry.get("value") if entry.get("name") == "CUSTOM_PORT" else None
        if isinstance(value, str) and value.isascii() and value.isdigit():
            port = int(value[:6])
            return port if 1 <= port <= 65535 else None
    return None


def _declared(spec: dict[str, Any]) -> Declared | None:
    only_processes = spec.get("process") is not None and not spec.get("baseImage")
    forms = _PROCESS_FORMS if only_processes else _IMAGE_FORMS
    for read in forms:
        declared = read(spec)
        if declared is not None:
            return declared
    if only_processes:
        return Declared(Protocol.VNC, PROCESS_PORT, "/", "spec.process")
    return None


def _from_connection(spec: dict[str, Any]) -> Declared | None:
    form = _mapping(spec, "connection")
    if form is None:
        return None
    field = "spec.connection"
    protocol = _protocol(form.get("protocol"), f"{field}.protocol")
    if protocol is None:
        raise RefusedError(f"{field}.protocol is missing (vnc or http)")
    return Declared(protocol, _port(form.get("port"), f"{field}.port"), _path(form, field), field)


def _from_vnc(spec: dict[str, Any]) -> Declared | None:
    form = _enabled(spec, "vnc")
    if form is None:
        return None
    port = _port(form.get("port", 5900), "spec.vnc.port")
    said = _protocol(form.get("protocol"), "spec.vnc.protocol")
    # 'vnc' on a web port means a web client: no image speaks raw RFB on 3000.
    guessed = Protocol.VNC if port in RFB_PORTS else Protocol.HTTP
    return Declared(said or guessed, port, _path(form, "spec.vnc"), "spec.vnc")


def _from_kasmvnc(spec: dict[str, Any]) -> Declared | None:
    form = _enabled(spec, "kasmvnc")
    if form is None:
        return None
    port = _port(form.get("port", 3000), "spec.kasmvnc.port")
    return Declared(Protocol.HTTP, port, _path(form, "spec.kasmvnc"), "spec.kasmvnc")


def _from_webapp(spec: dict[str, Any]) -> Declared | None:
    form = _enabled(spec, "webapp")
    if form is None:
        return None
    port = _port(form.get("port"), "spec.webapp.port")
    return Declared(Protocol.HTTP, port, _path(form, "spec.webapp"), "spec.webapp")


def _from_ports(spec: dict[str, Any]) -> Declared | None:
    for index, entry in enumerate(spec.get("ports") or ()):
        if str(entry.get("protocol", "TCP")).upper() != "TCP":
            continue
        field = f"spec.ports[{index}]"
        port = _port(entry.get("containerPort"), f"{field}.containerPort")
        protocol = Protocol.VNC if port in RFB_PORTS else Protocol.HTTP
        return Declared(protocol, port, "/", field)
    return None


_PROCESS_FORMS = (_from_connection, _from_webapp)
"""Processes have a display unless a template says that they serve a web client."""
_IMAGE_FORMS = (_from_connection, _from_vnc, _from_kasmvnc, _from_webapp, _from_ports)


def _agree_on_ports(spec: dict[str, Any], declared: Declared | None, actual: Declared) -> None:
    """Put the real port where the wrong one stood, and add it where there is none."""
    if spec.get("baseImage") is None:
        return
    ports = [dict(entry) for entry in spec.get("ports") or ()]
    for entry in ports:
        if declared is not None and entry.get("containerPort") == declared.port:
            entry["containerPort"] = actual.port
    if not any(entry.get("containerPort") == actual.port for entry in ports):
        ports.insert(
            0, {"name": actual.protocol.value, "containerPort": actual.port, "protocol": "TCP"}
        )
    spec["ports"] = ports


def _mapping(spec: dict[str, Any], name: str) -> dict[str, Any] | None:
    form = spec.get(name)
    if form is None:
        return None
    if not isinstance(form, dict):
        raise RefusedError(f"spec.{name} is not a mapping")
    return form


def _enabled(spec: dict[str, Any], name: str) -> dict[str, Any] | None:
    form = _mapping(spec, name)
    if form is None:
        return None
    enabled = form.get("enabled", True)
    if not isinstance(enabled, bool):
        raise RefusedError(f"spec.{name}.enabled is not true or false")
    return form if enabled else None


def _protocol(word: Any, field: str) -> Protocol | None:
    if word is None:
        return None
    text = word.strip().lower() if isinstance(word, str) else ""
    if text in _WEB_WORDS:
        return Protocol.HTTP
    if text in _RFB_WORDS:
        return Protocol.VNC
    raise RefusedError(f"{field}: {word!r} is not a protocol sessions are reached with (vnc, http)")


def _port(value: Any, field: str) -> int:
    if value is None:
        raise RefusedError(f"{field} is missing")
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise RefusedError(f"{field}: {_short(value)} is not a port from 1 to 65535")
    return value


def _path(form: dict[str, Any], field: str) -> str:
    path = form.get("path") or "/"
    if not isinstance(path, str) or not path.startswith("/") or len(path) > 500:
        raise RefusedError(f"{field}.path: {_short(path)} does not start with '/'")
    return path


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
