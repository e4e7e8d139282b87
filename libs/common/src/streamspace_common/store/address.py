"""Where PostgreSQL is, and how much its connection is protected.

A URL may say `sslmode` and `sslrootcert` as every provider's documentation has it, with
libpq's meaning. SQLAlchemy's asyncpg knows neither: both are taken out of the URL here,
and handed over as what asyncpg wants.
"""

import ssl
from typing import Any, Final

from sqlalchemy.engine import URL, make_url

from streamspace_common.runtime.supervisor import FatalError

_UNVERIFIED: Final = {"allow", "prefer", "require"}
_VERIFIED: Final = {"verify-ca", "verify-full"}
_SYSTEM: Final = "system"


def address(url: str) -> tuple[URL, dict[str, Any]]:
    """A URL for SQLAlchemy's asyncpg, and the arguments of a connection that belong to it.

    Raises:
        FatalError: the mode is not one of libpq's, or the certificates cannot be read.
    """
    parsed = make_url(url).set(drivername="postgresql+asyncpg")
    mode, roots = _one(parsed, "sslmode"), _one(parsed, "sslrootcert")
    parsed = parsed.difference_update_query(["sslmode", "sslrootcert"])
    if mode is None and roots is None:
        return parsed, {}
    return parsed, {"ssl": _protection(mode or "require", roots)}


def _one(url: URL, name: str) -> str | None:
    value = url.query.get(name)
    return value if isinstance(value, str) or value is None else value[-1]


def _protection(mode: str, roots: str | None) -> str | bool | ssl.SSLContext:
    if mode == "disable":
        return False
    if mode in _UNVERIFIED and (roots is None or mode != "require"):
        return mode
    if mode not in _VERIFIED | {"require"}:
        raise FatalError(f"The database URL's sslmode is {mode}, which PostgreSQL does not know.")
    context = ssl.create_default_context()
    # With roots, `require` checks them too, as libpq's does.
    context.check_hostname = mode == "verify-full"
    if roots is not None and roots != _SYSTEM:
        try:
            context = _trusting(roots, check_hostname=context.check_hostname)
        except OSError as error:
            reason = error.strerror or "it holds no certificate"
            raise FatalError(
                f"The database URL's sslrootcert {roots} cannot be read: {reason}."
            ) from error
    return context


def _trusting(roots: str, *, check_hostname: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_hostname
    context.load_verify_locations(cafile=roots)
    return context
