"""Messages for a sink are taken off the wire as the vendor takes them, wherever it is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from streamspace_common.bus.client import _Parser

SUNK = {7, 1234}
HEADERS = b"NATS/1.0\r\nce-id: 1\r\n\r\n"


class Heard:
    """What of `nats.aio.client.Client` a parser calls, keeping what it is told."""

    def __init__(self):
        self.stats = {"in_msgs": 0, "in_bytes": 0}
        self.messages = []
        self.others = []
        self.sinks = {number: self._sink(number) for number in SUNK}

    def _sink(self, number):
        return lambda *message: self._process(number, *message)

    def _process(self, number, subject, reply, payload, headers):
        self.messages.append((number, subject, reply, payload, headers))

    async def _process_msg(self, number, subject, reply, payload, headers):
        self._process(number, subject, reply, payload, headers)

    async def _process_ping(self):
        self.others.append("ping")

    async def _process_pong(self):
        self.others.append("pong")

    async def _process_err(self, told):
        self.others.append(told)


def message(number, payload, *, reply=b"", headers=HEADERS):
    told = b" " + reply if reply else b""
    if headers is None:
        return b"MSG a.b %d%s %d\r\n%s\r\n" % (number, told, len(payload), payload)
    total = len(headers) + len(payload)
    return b"HMSG a.b %d%s %d %d\r\n%s%s\r\n" % (
        number, told, len(headers), total, headers, payload,
    )  # fmt: skip


PIECES = st.one_of(
    st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'no'\r\n"]),
    st.builds(
        message,
        st.sampled_from([*SUNK, 8]),
        st.one_of(st.binary(max_size=40), st.sampled_from([b"HMSG a 7 1 1\r\n", b"\r\n" * 5])),
        reply=st.sampled_from([b"", b"r.1"]),
        headers=st.sampled_from([HEADERS, b"NATS/1.0 100\r\n\r\n", None]),
    ),
)


@given(st.lists(PIECES, max_size=8), st.data())
async def test_any_stream_of_bytes_is_read_as_the_vendor_reads_it(pieces, data):
    wire = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    theirs, ours = Heard(), Heard()
    parsers = Parser(theirs), _Parser(ours, ours.sinks)
    for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        for parser in parsers:
            await parser.parse(wire[begin:end])
        # Nothing that is complete is kept back.
        assert ours.messages == theirs.messages
    assert ours.others == theirs.others


async def test_a_message_for_a_sink_is_counted():
    heard = Heard()
    await _Parser(heard, heard.sinks).parse(message(7, b"four") + message(1234, b"x"))
    assert heard.stats == {"in_msgs": 2, "in_bytes": 5}


@pytest.mark.parametrize("line", [b"HMSG a.b 7 x y", b"HMSG a.b x 1 1", b"HMSG a.b"])
async def test_what_is_no_message_is_refused(line):
    heard = Heard()
    with pytest.raises(ProtocolError):
        await _Parser(heard, heard.sinks).parse(line + b"\r\n")
