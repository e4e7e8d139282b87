"""The head of an HTTP/1.1 request, read strictly.

The proxy's port takes WebSocket upgrades; anything a lenient reader would guess at
(folded headers, a bare line feed, two hosts) is refused, because something before or
behind us may guess differently.
"""

import base64
import binascii
import re
from dataclasses import dataclass

MAX_HEAD = 16 * 1024
"""Bytes. A browser's upgrade has about one thousand; cookies make it more."""
MAX_HEADERS = 100
END = b"\r\n\r\n"

_TOKEN = re.compile(rb"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$")
_TARGET = re.compile(rb"^[\x21-\x7e]+$")
_VALUE = re.compile(rb"^[\t\x20-\x7e\x80-\xff]*$")


class BadRequestError(Exception):
    """The request is not one this port understands; `status` says how."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True)
class RequestHead:
    """Header names are in lower case; `raw` is the head as it came, its end included."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def get(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self.headers if key == name)

    def words(self, name: str) -> frozenset[str]:
        """The comma-separated words of a header, in lower case."""
        return frozenset(
            word.strip().lower() for value in self.all(name) for word in value.split(",")
        )

    @property
    def wants_websocket(self) -> bool:
        return (
            self.method == "GET"
            and "websocket" in self.words("upgrade")
            and "upgrade" in self.words("connection")
        )


def parse(raw: bytes) -> RequestHead:
    """Read a whole head, up to and with its empty line.

    Raises:
        BadRequestError: it is not HTTP/1.1, or not strictly so.
    """
    first, *lines = raw.removesuffix(END).split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or not _TOKEN.match(parts[0]) or not _TARGET.match(parts[1]):
        raise BadRequestError(400, "This is not an HTTP request.")
    if parts[2] != b"HTTP/1.1":
        raise BadRequestError(505, "Only HTTP/1.1 is spoken here.")
    if len(lines) > MAX_HEADERS:
        raise BadRequestError(431, f"The request has more than {MAX_HEADERS} headers.")
    headers = tuple(_header(line) for line in lines)
    head = RequestHead(parts[0].decode(), parts[1].decode(), headers, raw)
    if len(head.all("host")) != 1:
        raise BadRequestError(400, "A request names exactly one host.")
    return head


def _header(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon or not _TOKEN.match(name) or not _VALUE.match(value):
        raise BadRequestError(400, "A header is malformed.")
    return name.decode().lower(), value.decode("latin-1")


def check_upgrade(head: RequestHead) -> None:
    """See that an upgrade is one of RFC 6455.

    Raises:
        BadRequestError: another version, or no valid key.
    """
    if head.get("sec-websocket-version") != "13":
        raise BadRequestError(426, "Only WebSocket version 13 is spoken here.")
    try:
        key = base64.b64decode(head.get("sec-websocket-key") or "", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise BadRequestError(400, "The upgrade has no valid Sec-WebSocket-Key.")
    if head.get("transfer-encoding") is not None or head.get("content-length") not in {None, "0"}:
        raise BadRequestError(400, "An upgrade has no body.")
