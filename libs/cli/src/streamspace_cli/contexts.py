"""Contexts: which servers this user knows, and how they are signed in there.

Everything is one JSON file of mode 0600 under `$XDG_CONFIG_HOME/streamspace`. A refresh
token is good for one use, so whoever refreshes holds a lock from reading the token to
writing its successor: two commands at once would otherwise end the sign-in.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from streamspace_cli.exits import CliError, ExitCode

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_LEEWAY = 30.0
"""Seconds before its end in which an access token is not used any more."""


@dataclass(frozen=True)
class Tokens:
    """What signing in gave; times in seconds since the epoch, by this machine's clock."""

    access: str = field(repr=False)
    refresh: str | None = field(default=None, repr=False)
    expires_at: float = 0.0

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Of the API's `TokenAnswer`."""
        return cls(
            access=str(answer["accessToken"]),
            refresh=answer.get("refreshToken"),
            expires_at=time.time() + float(answer["expiresIn"]),
        )

    @property
    def stale(self) -> bool:
        return time.time() >= self.expires_at - _LEEWAY


@dataclass(frozen=True)
class Context:
    """One server and one user's sign-in there."""

    name: str
    url: str
    username: str | None = None
    ca_file: str | None = None
    tokens: Tokens | None = None


class Contexts:
    """The file; every change reads it anew under the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> tuple[dict[str, Context], str | None]:
        """Contexts by name, and the name of the one in use.

        Raises:
            CliError: the file is there and cannot be read.
        """
        try:
            kept = json.loads(self.path.read_text())
            found = {name: _read(name, one) for name, one in kept["contexts"].items()}
        except FileNotFoundError:
            return {}, None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CliError(
                f"{self.path} cannot be read: {error}.", hint="Remove it and sign in again."
            ) from error
        current = kept.get("current")
        return found, current if current in found else None

    def get(self, name: str) -> Context | None:
        return self.all()[0].get(name)

    def save(self, context: Context, *, use: bool = False) -> None:
        with self.locked():
            self._save(context, use=use)

    def replace_tokens(self, context: Context, tokens: Tokens | None) -> Context:
        """Keep new tokens (None: signed out); only while the lock is held."""
        changed = replace(context, tokens=tokens)
        self._save(changed)
        return changed

    def use(self, name: str) -> None:
        with self.locked():
            found, _ = self.all()
            if name not in found:
                raise no_such_context(name, found)
            self._write(found, name)

    def delete(self, name: str) -> Context:
        with self.locked():
            found, current = self.all()
            if name not in found:
                raise no_such_context(name, found)
            gone = found.pop(name)
            self._write(found, None if current == name else current)
        return gone

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the file, among all commands of this user."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CliError(f"{self.path.parent} cannot be written: {error.strerror}.") from error
        with os.fdopen(handle) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _save(self, context: Context, *, use: bool = False) -> None:
        found, current = self.all()
        found[context.name] = context
        self._write(found, context.name if use or current is None else current)

    def _write(self, found: Mapping[str, Context], current: str | None) -> None:
        kept = {name: _written(context) for name, context in found.items()}
        text = json.dumps({"current": current, "contexts": kept}, indent=2) + "\n"
        write_private(self.path, text)


def write_private(path: Path, text: str) -> None:
    """Write a file that was never readable by others, not even for a moment.

    Raises:
        CliError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}.") from error


def default_path(environment: Mapping[str, str]) -> Path:
    """Where the file is, by the XDG base directory rules."""
    base = environment.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
    return folder / "streamspace" / "contexts.json"


def normal_url(text: str) -> str:
    """A server's address as it is kept: with a scheme, without a path's last slash.

    Raises:
        CliError: it is none.
    """
    with_scheme = text if "://" in text else f"{_guess(text)}://{text}"
    try:
        parts = urlsplit(with_scheme)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    plain = parts.username is None and not parts.query and not parts.fragment
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
        raise CliError(
            f"{text} is not the address of a server.",
            ExitCode.USAGE,
            hint="An address is, for instance, https://streamspace.example.com.",
        )
    return with_scheme.rstrip("/")


def is_loopback(url: str) -> bool:
    return (urlsplit(url).hostname or "") in _LOOPBACK


def name_for(url: str) -> str:
    """What a context is called that nobody gave a name."""
    return urlsplit(url).netloc


def no_such_context(name: str, found: Mapping[str, Context]) -> CliError:
    known = ", ".join(sorted(found)) or "none yet"
    return CliError(f"There is no context {name}; known: {known}.", ExitCode.NOT_FOUND)


def _guess(address: str) -> str:
    return "http" if is_loopback(f"http://{address}") else "https"


def _read(name: str, kept: Mapping[str, Any]) -> Context:
    tokens = kept.get("tokens")
    return Context(
        name=name,
        url=str(kept["url"]),
        username=kept.get("username"),
        ca_file=kept.get("caFile"),
        tokens=Tokens(**tokens) if tokens else None,
    )


def _written(context: Context) -> dict[str, Any]:
    return {
        "url": context.url,
        "username": context.username,
        "caFile": context.ca_file,
        "tokens": asdict(context.tokens) if context.tokens else None,
    }
