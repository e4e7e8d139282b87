"""The installation's own authority and what it vouches for, as files beside the secrets."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from streamspace_common.runtime.private_files import write_private
from streamspace_embedded import certificates
from streamspace_embedded.certificates import Pair
from streamspace_embedded.layout import Layout


def server_certificate(
    layout: Layout, name: str, names: Sequence[str], now: datetime, *, renew: bool = False
) -> tuple[Pair, Pair]:
    """The authority, which stays, and a server's certificate, made anew when it is due.

    Args:
        layout: the installation; its folder of secrets exists.
        name: of the certificate's files, `<name>.crt` and `<name>.key`.
        names: hosts and addresses that it has to hold for.
        now: aware.
        renew: make it anew in any case.
    """
    authority = _read(layout, "ca")
    if authority is None:
        authority = certificates.new_authority(now)
        _write(layout, "ca", authority)
    server = _read(layout, name)
    if server is None or renew or not certificates.is_current(server, authority, names, now):
        server = certificates.new_server(authority, names, now)
        _write(layout, name, server)
    return authority, server


def authority_file(layout: Layout) -> Path:
    """The authority's certificate, for whoever has to trust it."""
    return _path(layout, "ca", "crt")


def server_files(layout: Layout, name: str) -> tuple[Path, Path]:
    """A server's certificate and its key."""
    return _path(layout, name, "crt"), _path(layout, name, "key")


def _path(layout: Layout, name: str, end: str) -> Path:
    return layout.secrets / f"{name}.{end}"


def _read(layout: Layout, name: str) -> Pair | None:
    certificate, key = server_files(layout, name)
    if not (certificate.exists() and key.exists()):
        return None
    return Pair(certificate.read_text(), key.read_text())


def _write(layout: Layout, name: str, pair: Pair) -> None:
    certificate, key = server_files(layout, name)
    write_private(key, pair.key)
    write_private(certificate, pair.certificate)
