"""What of a message's headers passes between a browser and a session, and in what form. Pure.

Hop-by-hop headers end here (RFC 9110 7.6.1). The control plane's cookies and bearer tokens
never reach a session, and a session cannot set cookies for any host but its own. Everything
else is the application's business and passes untouched.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from streamspace_vnc_proxy.apps.address import host_name

Header = tuple[bytes, bytes]
Headers = list[Header]

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_NEVER_HOP_BY_HOP = frozenset({b"host", b"content-length"})
"""Whatever `Connection` names: without them a message would become another one."""
_NOT_TO_SESSION = frozenset(
    {
        # Answered by the relay itself, when it is ready for the body.
        b"expect",
        # Said anew, truthfully.
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
_NOT_TO_BROWSER = frozenset(
    {
        # Whether this host is for https alone is not the session's to say; nor where else
        # it could be reached.
        b"strict-transport-security",
        b"alt-svc",
    }
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})
OWN_COOKIES = ("streamspace_", "__host-streamspace", "__secure-streamspace")
"""How the names of the control plane's cookies begin, in lower case."""


@dataclass(frozen=True)
class Outside:
    """How the browser came: what the session is told of it."""

    client: str
    host: str
    scheme: str


def values(headers: Iterable[Header], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def first(headers: Iterable[Header], name: bytes) -> str | None:
    """The first of a header's values; None where it is missing."""
    found = values(headers, name)
    return found[0].decode("latin-1") if found else None


def words(headers: Iterable[Header], name: bytes) -> set[bytes]:
    """The comma-separated words of a header, in lower case."""
    return {
        word.strip().lower() for value in values(headers, name) for word in value.split(b",")
    } - {b""}


def wants_websocket(headers: Headers) -> bool:
    return b"websocket" in words(headers, b"upgrade") and b"upgrade" in words(
        headers, b"connection"
    )


def cookies(headers: Headers) -> list[tuple[str, str]]:
    """Every cookie of a request, in order, names as they came."""
    found = []
    for line in values(headers, b"cookie"):
        for pair in line.decode("latin-1").split(";"):
            name, equals, value = pair.strip().partition("=")
            if equals:
                found.append((name.strip(), value.strip()))
    return found


def to_session(headers: Headers, outside: Outside, *, upgrade: bool, chunked: bool) -> Headers:
    """A request's headers as the session gets them."""
    named = words(headers, b"connection") - _NEVER_HOP_BY_HOP
    dropped = _HOP_BY_HOP | _NOT_TO_SESSION | named | {b"cookie"}
    if chunked:
        dropped |= {b"content-length"}
    passed = [
        (name, value)
        for name, value in headers
        if name.lower() not in dropped and not _is_bearer(name, value)
    ]
    kept = [line for line in map(_foreign_cookies, values(headers, b"cookie")) if line]
    if kept:
        passed.append((b"Cookie", b"; ".join(kept)))
    passed += [
        (b"X-Forwarded-For", outside.client.encode("latin-1", "replace")),
        (b"X-Forwarded-Host", outside.host.encode("latin-1", "replace")),
        (b"X-Forwarded-Proto", outside.scheme.encode()),
    ]
    if chunked:
        passed.append((b"Transfer-Encoding", b"chunked"))
    return passed + (_UPGRADE if upgrade else [])


_UPGRADE: Headers = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]


def _is_bearer(name: bytes, value: bytes) -> bool:
    # Any bearer token: the gateway's looks like everybody's. Basic is the application's.
    scheme = value.strip().partition(b" ")[0].lower()
    return name.lower() == b"authorization" and scheme == b"bearer"


def _foreign_cookies(line: bytes) -> bytes:
    pairs = [pair.strip() for pair in line.split(b";")]
    return b"; ".join(pair for pair in pairs if pair and not _is_own_cookie(pair))


def _is_own_cookie(pair: bytes) -> bool:
    name = pair.partition(b"=")[0].strip().decode("latin-1").lower()
    return name.startswith(OWN_COOKIES)


def to_browser(headers: Headers, outside: Outside, *, port: int, upgrade: bool) -> Headers:
    """An answer's headers as the browser gets them; `port` is the session's own."""
    named = words(headers, b"connection") - _NEVER_HOP_BY_HOP
    dropped = _HOP_BY_HOP | _NOT_TO_BROWSER | named
    passed: Headers = []
    for name, value in headers:
        match name.lower():
            case known if known in dropped:
                pass
            case b"set-cookie":
                if not _is_own_cookie(value):
                    passed.append((name, _without_domain(value)))
            case b"location":
                passed.append((name, _seen_from_outside(value, outside, port)))
            case _:
                passed.append((name, value))
    if not values(headers, b"referrer-policy"):
        passed.append((b"Referrer-Policy", b"same-origin"))
    return passed + (_UPGRADE if upgrade else [])


def _without_domain(cookie: bytes) -> bytes:
    first, *attributes = cookie.split(b";")
    kept = [a for a in attributes if a.partition(b"=")[0].strip().lower() != b"domain"]
    return b";".join([first, *kept])


def _seen_from_outside(location: bytes, outside: Outside, port: int) -> bytes:
    """A redirect to the session itself, by whatever name it knows itself, stays on its host."""
    try:
        parts = urlsplit(location.decode("latin-1"))
        inner = parts.hostname in _LOOPBACK and (parts.port or 80) == port
        own = parts.netloc.lower() == outside.host.lower()
        by_name = parts.port == port and parts.hostname == host_name(outside.host)
    except ValueError:
        return location
    if parts.scheme not in {"http", "https"} or not (inner or own or by_name):
        return location
    path = "/" + parts.path.lstrip("/")
    query = f"?{parts.query}" if parts.query else ""
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return f"{path}{query}{fragment}".encode("latin-1")
