"""The vendor's client with a header parser fit for streams read by the million.

The vendor looks at each character of each header's name; with our dozen headers that is
half of the time it takes to read a message.
"""

from nats.aio.client import Client as VendorClient

_BLANK = " \t\r\n\x0b\x0c"


class Client(VendorClient):
    """What it accepts and what it makes of it are as before."""

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        headers = {}
        for line in raw.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            name = name.strip(_BLANK)
            if colon and name.isascii() and len(name.split(None, 1)) < 2:
                headers[name] = value.strip(_BLANK)
        return headers
