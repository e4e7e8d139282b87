"""HTTP connections that look at whom they have reached before they speak.

An operator names the host, but DNS and redirects choose the address. It is checked
on the connected socket, so no second look-up can say something else: link-local
addresses (a cloud's metadata service lives there) are never spoken to, and private
ones only where the installation allows it, which is the default, since many git
servers live there. Behind a proxy the proxy decides.
"""

import ipaddress
import socket
import ssl
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class ForbiddenAddressError(Exception):
    """The host's address is one that this installation does not fetch from."""


def in_words(error: Exception) -> str:
    """What went wrong with a request, as a person would say it."""
    reason: BaseException = error
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        reason = error.reason
    for cause in (reason.__cause__, *reason.args):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message})."
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS."
        if isinstance(cause, OSError) and cause.strerror:
            return f"{cause.strerror}."
    if isinstance(reason, urllib3.exceptions.TimeoutError):
        return "it took too long."
    return str(reason)


def check_address(address: str, *, private_addresses: bool) -> None:
    """Refuse an address that no catalog should be fetched from.

    Raises:
        ForbiddenAddressError: it is link-local, multicast or unspecified, or private
            where private ones are not allowed.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        raise ForbiddenAddressError(f"its address {ip} is not one that catalogs are fetched from")
    if not private_addresses and not ip.is_global:
        raise ForbiddenAddressError(f"its address {ip} is a private one, which is not allowed here")


def pool_manager(*, private_addresses: bool, timeout: float) -> urllib3.PoolManager:
    """A pool manager whose connections are checked; `timeout` in seconds, to open and to read."""

    def checked(connection: socket.socket) -> socket.socket:
        try:
            check_address(connection.getpeername()[0], private_addresses=private_addresses)
        except BaseException:
            connection.close()
            raise
        return connection

    class _Http(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return checked(super()._new_conn())

    class _Https(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return checked(super()._new_conn())

    class _HttpPool(HTTPConnectionPool):
        ConnectionCls = _Http

    class _HttpsPool(HTTPSConnectionPool):
        ConnectionCls = _Https

    options: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=timeout, read=timeout),
        # The next sync is the retry; here it would only make a dead host take longer.
        "retries": urllib3.Retry(connect=0, read=0, other=0, redirect=3, status=0),
        "cert_reqs": "CERT_REQUIRED",
    }
    manager = urllib3.PoolManager(headers={"User-agent": "git/streamspace"}, **options)
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return manager
