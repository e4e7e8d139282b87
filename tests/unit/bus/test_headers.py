"""Our header parser makes of any header block what the vendor's does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client as VendorClient

from streamspace_common.bus.client import Client


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"ce-id: 1\r\nce-type:x\r\n\r\n",
        b"a:\tb\r\nc :  d  \r\n",
        b"two words: x\r\nfine: y\r\n",
        "gr\u00fc\u00df: x\r\nreason: gr\u00fc\u00df\r\n".encode(),
        b"no colon\r\n:no name\r\nbad: \xff\xfe\r\n",
        b"url: nats://here:4222\r\n",
    ],
)
def test_headers_are_read_as_the_vendor_reads_them(raw):
    assert Client._parse_header_lines(raw) == VendorClient._parse_header_lines(raw)


_LINES = st.lists(
    st.tuples(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12),
        st.text(st.characters(exclude_characters="\r\n"), max_size=30),
    ),
    max_size=6,
)


@given(_LINES)
def test_any_headers_we_could_send_are_read_alike(lines):
    raw = "".join(f"{name}: {value}\r\n" for name, value in lines).encode("utf-8", "replace")
    ours, theirs = Client._parse_header_lines(raw), VendorClient._parse_header_lines(raw)
    assert ours == theirs
