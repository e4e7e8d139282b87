"""TLS to the bus, where its address asks for it.

`tls://` and `wss://` mean encrypted or not at all: a client that also took a plain connection would
hand its token to whoever listens in between.
"""

import ssl
from pathlib import Path

from streamspace_common.runtime.supervisor import FatalError

_SCHEMES = ("tls://", "wss://")
_WEBSOCKETS = ("ws://", "wss://")


def encryption(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """How to encrypt connections to `url`; None for plain ones.

    Args:
        url: one address, or several with commas between.
        ca_file: certificate authorities (PEM) trusted besides the system's own.

    Raises:
        FatalError: some addresses are encrypted and others are not, or the file holds no
            certificate that can be read.
    """
    encrypted = [part.strip().startswith(_SCHEMES) for part in url.split(",")]
    if not any(encrypted):
        return None
    if not all(encrypted):
        raise FatalError(
            "NATS addresses are either all tls:// (or all wss://) or none; these are mixed."
        )
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            reason = error.strerror or "it holds no certificate"
            raise FatalError(
                f"The certificate authorities for NATS cannot be read from {ca_file}: {reason}."
            ) from error
    return context


def is_websocket(url: str) -> bool:
    """Whether the first of these addresses is that of a WebSocket listener."""
    return url.strip().startswith(_WEBSOCKETS)
