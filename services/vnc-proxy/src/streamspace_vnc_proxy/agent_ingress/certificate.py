"""The ingress' certificate, which may be replaced while it runs."""

import asyncio
import ssl
from pathlib import Path

from cryptography import x509

from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.supervisor import FatalError
from streamspace_vnc_proxy.agent_ingress.metrics import CERTIFICATE_ENDS

log = get_logger(__name__)

_LOOK_EVERY = 30.0

_Stamp = tuple[tuple[int, int], ...]


class Certificate:
    """A certificate with its key, as files that whoever renews them replaces.

    Args:
        certificate: PEM, with what leads to its authority.
        key: PEM, without a password.
        look_every: seconds between looks at the files.

    Raises:
        FatalError: they cannot be read, or do not fit each other.
    """

    def __init__(self, certificate: Path, key: Path, *, look_every: float = _LOOK_EVERY) -> None:
        self._files = (certificate, key)
        self._look_every = look_every
        self._stamp = self._now()
        self.context = self._read()
        CERTIFICATE_ENDS.set(self._ends())

    async def keep_fresh(self) -> None:
        """Take up what the files hold whenever they change; for ever.

        Connections that are open go on with what they began with.
        """
        while True:
            await asyncio.sleep(self._look_every)
            self.look()

    def look(self) -> None:
        """Take up what the files hold, if they have changed."""
        stamp = self._now()
        if stamp == self._stamp:
            return
        try:
            # Apart first: half of a new pair must not end up beside half of the old one.
            self._read()
            self.context.load_cert_chain(*self._files)
            CERTIFICATE_ENDS.set(self._ends())
        except FatalError as error:
            # One file is there and the other not yet, or somebody made a mistake.
            log.warning("the certificate has changed and is no good", error=str(error))
            return
        self._stamp = stamp
        log.info("certificate taken up", path=str(self._files[0]))

    def _now(self) -> _Stamp:
        try:
            return tuple((found.st_mtime_ns, found.st_ino) for found in map(Path.stat, self._files))
        except OSError:
            return ()

    def _ends(self) -> float:
        """Unix time of the end of its first certificate, which is its own.

        Raises:
            FatalError: the file is gone, or was exchanged for something else just now.
        """
        try:
            return x509.load_pem_x509_certificate(
                self._files[0].read_bytes()
            ).not_valid_after_utc.timestamp()
        except (OSError, ValueError) as error:
            raise FatalError(f"The certificate {self._files[0]} cannot be read.") from error

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # What follows is one WebSocket.
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(*self._files, password=_no_password)
        except (OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise FatalError(
                f"The certificate {self._files[0]} and its key {self._files[1]} are no good: "
                f"{reason}."
            ) from error
        return context


def _no_password() -> str:
    """Instead of the question at a terminal that OpenSSL would ask.

    Raises:
        ValueError: always.
    """
    raise ValueError("the key has a password")
