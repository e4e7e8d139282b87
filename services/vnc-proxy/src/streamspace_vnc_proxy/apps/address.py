"""Hosts and origins: which session a request is for, and which pages may enter one. Pure."""

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from streamspace_common.contracts.ids import LABEL_PATTERN, SESSION_ID_LENGTH, SessionId

_LABEL = re.compile(LABEL_PATTERN)
_ENDING = re.compile(r"-[0-9a-f]{8}$")
"""How every session's id ends, and hardly any other host name's first label does."""
_LOCAL = "localhost"


class AppsDomain:
    """The domain below which each session has a host name of its own."""

    def __init__(self, domain: str) -> None:
        self.name = domain.strip(".").lower()

    def session_of(self, host: str | None) -> SessionId | None:
        """The session a Host header names; None where it names none."""
        name = host_name(host)
        if name is None:
            return None
        label, dot, rest = name.partition(".")
        if not dot or rest != self.name or len(label) > SESSION_ID_LENGTH:
            return None
        named = _LABEL.match(label) and _ENDING.search(label)
        return SessionId(label) if named else None

    def may_enter(self, origin: str | None, allowed: Iterable[str]) -> bool:
        """May a page of `origin` bring a ticket?

        Without a list, pages of this domain itself and of the domains above it may: those
        are where StreamSpace is, while sessions are below. A session's page never may. No
        origin at all is no browser; such a client brings nobody's cookies.
        """
        if origin is None:
            return True
        permitted = [each.rstrip("/").lower() for each in allowed]
        if permitted:
            return "*" in permitted or origin.lower() in permitted
        try:
            page = urlsplit(origin).hostname
        except ValueError:
            return False
        if page is None:
            return False
        above = self.name == page or self.name.endswith(f".{page}")
        return above or (self._is_local and _is_loopback(page))

    @property
    def _is_local(self) -> bool:
        return self.name == _LOCAL or self.name.endswith(f".{_LOCAL}")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == _LOCAL


def host_name(host: str | None) -> str | None:
    """A Host header without its port, in lower case."""
    try:
        return urlsplit(f"//{host}").hostname if host else None
    except ValueError:
        return None


def is_own_page(origin: str | None, fetch_site: str | None, host: str) -> bool:
    """Does a request come from a page of the host it goes to?

    Browsers let any page send WebSocket upgrades and forms anywhere, with cookies.
    `Sec-Fetch-Site` is the browser's own word, which no page can set; where it is missing,
    the origin has to be this very host. Neither is no browser.
    """
    if fetch_site is not None:
        return fetch_site.strip().lower() in {"same-origin", "none"}
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
