"""What a viewer brings: a ticket among its subprotocols, and the page it comes from.

A browser can set no header on a WebSocket but this one, and a ticket in the address
would end up in logs and histories.
"""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

SUBPROTOCOL = "binary"
TICKET_PREFIX = "streamspace.ticket."

_TICKET = re.compile(r"^[A-Za-z0-9_\-.~]{16,200}$")


def offered(protocols: Iterable[str]) -> tuple[bool, str | None]:
    """Whether `binary` is offered, and the ticket; None for no ticket or several."""
    names = [name.strip() for line in protocols for name in line.split(",")]
    tickets = [name.removeprefix(TICKET_PREFIX) for name in names if name.startswith(TICKET_PREFIX)]
    ticket = tickets[0] if len(tickets) == 1 and _TICKET.match(tickets[0]) else None
    return SUBPROTOCOL in names, ticket


def origin_allowed(origin: str | None, host: str | None, allowed: Iterable[str]) -> bool:
    """May a page of `origin` open a stream at `host` (the Host header)?

    Without a list, pages of the same host name may, whatever their port: gateway and
    proxy are two ports of one machine. No origin at all is no browser; such a client
    carries nobody's cookies, only its ticket.
    """
    if origin is None:
        return True
    permitted = [each.rstrip("/").lower() for each in allowed]
    if permitted:
        return "*" in permitted or origin.lower() in permitted
    try:
        page, here = urlsplit(origin).hostname, urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return page is not None and page == here
