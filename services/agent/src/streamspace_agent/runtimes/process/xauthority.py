"""The file with the secret that lets a program talk to an X server."""

import secrets
import struct

_ANY_HOST = 65535
"""FamilyWild: the entry is for every host and, with no number, for every display."""
NAME = b"MIT-MAGIC-COOKIE-1"


def new_cookie() -> bytes:
    return secrets.token_bytes(16)


def file_content(cookie: bytes) -> bytes:
    """An .Xauthority for any display, so it can be written before the number is known."""
    parts = (b"", b"", NAME, cookie)
    return struct.pack(">H", _ANY_HOST) + b"".join(
        struct.pack(">H", len(part)) + part for part in parts
    )
