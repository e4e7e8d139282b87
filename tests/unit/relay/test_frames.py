"""The reader of data frames, beside an implementation that is not ours."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from streamspace_common.relay.frames import LONGEST_REST, MAX_FRAME, Buffer, FrameReader, header


class Heard:
    """A reader with everything it told, in order."""

    def __init__(self, *, masked: bool) -> None:
        self.payload = b""
        self.control: list[bytes] = []
        self.at_control: list[int] = []
        self.errors: list[tuple[int, str]] = []
        self._rest = b""
        self.reader = FrameReader(
            masked=masked,
            on_payload=self._on_payload,
            on_control=self._on_control,
            on_error=lambda code, reason: self.errors.append((code, reason)),
        )

    def feed(self, data: bytes) -> None:
        view = memoryview(self._rest + data)
        used = self.reader.feed(view)
        self._rest = bytes(view[used:])
        assert len(self._rest) <= LONGEST_REST

    def _on_payload(self, pieces: list[Buffer]) -> None:
        assert pieces
        self.payload += b"".join(pieces)

    def _on_control(self, frame: bytes) -> None:
        self.control.append(frame)
        self.at_control.append(len(self.payload))


def on_wire(frame: Frame, *, masked: bool) -> bytes:
    return frame.serialize(mask=masked)


data_frames = st.builds(
    Frame,
    st.sampled_from([Opcode.BINARY, Opcode.CONT]),
    st.one_of(
        st.binary(max_size=200),
        st.integers(0, 70_000).map(lambda n: bytes(range(256)) * (n // 256)),
    ),
    st.booleans(),
)
control_frames = st.builds(
    Frame, st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE]), st.binary(max_size=125)
)


@given(
    st.lists(st.one_of(data_frames, control_frames), max_size=12),
    st.lists(st.integers(0, 1_000_000), max_size=20),
    st.booleans(),
)
def test_frames_are_read_however_they_are_cut(
    sent: list[Frame], places: list[int], masked: bool
) -> None:
    wire = b"".join(on_wire(frame, masked=masked) for frame in sent)
    borders = [0, *sorted(place % (len(wire) + 1) for place in places), len(wire)]
    heard = Heard(masked=masked)
    for begin, end in itertools.pairwise(borders):
        heard.feed(wire[begin:end])
    data = [f for f in sent if f.opcode in {Opcode.BINARY, Opcode.CONT}]
    assert heard.payload == b"".join(bytes(f.data) for f in data)
    assert len(heard.control) == len(sent) - len(data)
    assert heard.errors == []
    # Payload and control frames keep their order.
    expected, seen = [], 0
    for frame in sent:
        if frame in data:
            seen += len(frame.data)
        else:
            expected.append(seen)
    assert heard.at_control == expected


@given(st.binary(max_size=500), st.booleans())
def test_garbage_is_refused_or_read_but_never_crashes(wire: bytes, masked: bool) -> None:
    heard = Heard(masked=masked)
    heard.feed(wire)
    heard.feed(wire)
    assert len(heard.errors) <= 1


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x82\x01x", 1002),  # a client has to mask
        (b"\xc2\x81abcdx", 1002),  # a bit of an extension nobody agreed on
        (b"\x81\x81abcdx", 1003),  # text
        (b"\x83\x81abcdx", 1002),  # a reserved type
        (b"\x09\x81abcdx", 1002),  # a ping in two parts
        (b"\x89\xfe\x00\x80abcd", 1002),  # a ping too long
        (b"\x82\xff" + (MAX_FRAME + 1).to_bytes(8) + b"abcd", 1009),
        (b"\x01\xff" + (MAX_FRAME + 1).to_bytes(8) + b"abcd", 1003),  # told once, the first fault
    ],
)
def test_what_is_not_allowed_ends_the_reading(wire: bytes, code: int) -> None:
    heard = Heard(masked=True)
    heard.feed(wire)
    heard.feed(b"\x82\x81\0\0\0\0y")
    assert [each for each, _ in heard.errors] == [code]
    assert b"y" not in heard.payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, MAX_FRAME])
@pytest.mark.parametrize("masked", [True, False])
def test_our_frames_are_read_again(size: int, *, masked: bool) -> None:
    heard = Heard(masked=masked)
    heard.feed(header(size, masked=masked) + bytes(size))
    assert heard.payload == bytes(size)
    assert heard.errors == []
