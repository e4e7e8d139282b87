"""Where a catalog may come from: addresses checked before anything is opened. Pure.

Taken are `https://`, `ssh://` and the short ssh form `git@host:path`, absolute paths
and `file://` of this machine, and `http://` where a setting allows it. An address
never carries a secret: it is listed to every user, logged, and stored as it is.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from streamspace_catalog_sync.manifest.prose import has_control_characters

_SCP_FORM = re.compile(r"(?P<user>[A-Za-z0-9._-]+@)(?P<host>[A-Za-z0-9.-]+):(?P<path>[^/:][^:]*)")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_SSH_USER = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]{0,63}")
_BRANCH = re.compile(r"(?!-)[^\x00-\x20~^:?*\[\\\x7f]{1,200}")


class Transport(StrEnum):
    HTTP = "http"
    SSH = "ssh"
    LOCAL = "local"


@dataclass(frozen=True)
class AddressRules:
    """What this installation allows."""

    local_paths: bool = True
    plain_http: bool = False


@dataclass(frozen=True)
class Address:
    """A checked address, written in one way. For a local path, `url` is the path."""

    transport: Transport
    url: str


class AddressError(ValueError):
    """The address cannot be used; the message says what to give instead."""


def parse_address(text: str, rules: AddressRules) -> Address:
    """Check an address that an operator gave.

    Raises:
        AddressError: not an address of a kind that is allowed here, or one that
            carries credentials.
    """
    text = text.strip()
    if has_control_characters(text) or any(character.isspace() for character in text):
        raise AddressError("The address holds spaces or control characters.")
    if text.startswith("/"):
        return _local(text, rules)
    if "://" not in text and (short := _SCP_FORM.fullmatch(text)):
        return _ssh(urlsplit(f"ssh://{short['user']}{short['host']}/~/{short['path']}"))
    parts = _split(text)
    match parts.scheme.lower():
        case "https":
            return _http(parts)
        case "http" if rules.plain_http:
            return _http(parts)
        case "http":
            raise AddressError("Use https: http is read and changed on the way.")
        case "ssh":
            return _ssh(parts)
        case "file":
            if parts.netloc not in {"", "localhost"}:
                raise AddressError("A file: address names no host; use file:///path.")
            return _local(unquote(parts.path), rules)
        case _:
            raise AddressError("Give an https or ssh address of a git repository, or its path.")


def check_branch(name: str) -> str:
    """A branch or tag name as git allows it.

    Raises:
        AddressError: git has no such names.
    """
    parts = name.split("/")
    sound = _BRANCH.fullmatch(name) and ".." not in name and "@{" not in name
    if not sound or any(
        not part or part.startswith(".") or part.endswith((".lock", ".")) for part in parts
    ):
        raise AddressError(f"{name!r} is not a branch's name.")
    return name


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise AddressError("The address is not a valid URL.") from error
    return parts


def _http(parts: SplitResult) -> Address:
    if "@" in parts.netloc:
        raise AddressError("Leave credentials out of the address; give the token as `token`.")
    return Address(Transport.HTTP, f"{parts.scheme.lower()}://{_host(parts)}{_path(parts)}")


def _ssh(parts: SplitResult) -> Address:
    if parts.password is not None:
        raise AddressError("Leave the password out of the address; ssh uses this service's key.")
    user = parts.username or "git"
    if not _SSH_USER.fullmatch(user):
        raise AddressError("The ssh user name is not valid.")
    return Address(Transport.SSH, f"ssh://{user}@{_host(parts)}{_path(parts)}")


def _host(parts: SplitResult) -> str:
    host = parts.netloc.rpartition("@")[2]
    name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    if not _HOST.fullmatch(name):
        raise AddressError("The address has no valid host name.")
    return host.lower()


def _path(parts: SplitResult) -> str:
    if parts.query or parts.fragment:
        raise AddressError("The address has a query or fragment, which git has no use for.")
    path = parts.path.rstrip("/")
    if not path.strip("/"):
        raise AddressError("The address names a host but no repository.")
    return path


def _local(path: str, rules: AddressRules) -> Address:
    if not rules.local_paths:
        raise AddressError("This installation takes no local paths; give an https or ssh address.")
    if not path.startswith("/") or has_control_characters(path):
        raise AddressError("Give an absolute path.")
    if ".." in PurePosixPath(path).parts:
        raise AddressError("Give the path without '..'.")
    return Address(Transport.LOCAL, str(PurePosixPath(path)))
