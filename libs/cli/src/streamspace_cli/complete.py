"""What a shell completes: contexts from the file, ids from the server.

A shell that waits is worse than one that completes nothing: the server gets two seconds,
and whatever goes wrong gives no proposals and not a word. Tokens are used as they are.
"""

import os
from collections.abc import Callable, Iterator

import httpx2

from streamspace_cli.contexts import Context, Contexts, Tokens, default_path
from streamspace_cli.exits import CliError

_PATIENCE = 2.0
Proposals = list[tuple[str, str]]


def contexts(incomplete: str) -> Proposals:
    try:
        found, _ = Contexts(default_path(os.environ)).all()
    except CliError:
        return []
    return [(name, one.url) for name, one in found.items() if name.startswith(incomplete)]


def _ids(path: str, about: str) -> Callable[[str], Proposals]:
    def propose(incomplete: str) -> Proposals:
        try:
            return [
                (str(item["id"]), str(item.get(about) or ""))
                for item in _items(path)
                if str(item["id"]).startswith(incomplete)
            ]
        except (CliError, httpx2.HTTPError, ValueError, KeyError, TypeError, OSError):
            return []

    return propose


def _items(path: str) -> Iterator[dict[str, object]]:
    from streamspace_cli.api import open_client

    context = _context()
    if context is None or context.tokens is None:
        return
    with open_client(context, timeout=_PATIENCE) as client:
        answer = client.get(path, headers={"Authorization": f"Bearer {context.tokens.access}"})
        yield from answer.raise_for_status().json()["items"]


def _context() -> Context | None:
    """The one in use; a `--context` on the line being completed is not looked at."""
    found, current = Contexts(default_path(os.environ)).all()
    name = os.environ.get("STREAMSPACE_CONTEXT") or current
    url, token = os.environ.get("STREAMSPACE_URL"), os.environ.get("STREAMSPACE_TOKEN")
    chosen = found.get(name) if name else None
    if url:
        chosen = next((one for one in found.values() if one.url == url), Context(url, url))
    if chosen is not None and token:
        return Context(chosen.name, chosen.url, ca_file=chosen.ca_file, tokens=Tokens(token))
    return chosen


sessions = _ids("sessions?includeFinal=true&limit=200", "state")
live_sessions = _ids("sessions?limit=200", "state")
templates = _ids("templates?limit=200", "displayName")
clusters = _ids("clusters", "presence")
catalogs = _ids("catalogs", "name")
dead_letters = _ids("dead-letters?limit=200", "reason")
users = _ids("users?limit=200", "username")
