"""The reader of viewers' messages: what passes, what counts as input, what ends a stream."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamspace_vnc_proxy import rfb
from streamspace_vnc_proxy.rfb import ClientMessages

HELLO = b"RFB 003.008\n\x01\x01"
PIXEL_FORMAT = bytes([0, 0, 0, 0]) + bytes(16)
UPDATE = struct.pack(">BBHHHH", 3, 1, 0, 0, 1280, 800)
KEY = struct.pack(">BBxxI", 4, 1, 0x61)
CONTINUOUS = struct.pack(">BBHHHH", 150, 1, 0, 0, 1280, 800)
XVP = bytes([250, 0, 1, 2])
QEMU_KEY = struct.pack(">BBHII", 255, 0, 1, 0x61, 30)


def pointer(x: int, y: int, buttons: int = 0) -> bytes:
    return struct.pack(">BBHH", 5, buttons, x, y)


def long_pointer(x: int, y: int) -> bytes:
    return struct.pack(">BBHHB", 5, 0x80, x, y, 1)


def encodings(*numbers: int) -> bytes:
    return struct.pack(f">BxH{len(numbers)}i", 2, len(numbers), *numbers)


def cut_text(text: bytes, *, extended: bool = False) -> bytes:
    return struct.pack(">Bxxxi", 6, -len(text) if extended else len(text)) + text


def fence(payload: bytes) -> bytes:
    return struct.pack(">BxxxIB", 248, 0x80000001, len(payload)) + payload


def resize(screens: int = 1) -> bytes:
    return struct.pack(">BxHHBx", 251, 800, 600, screens) + bytes(16 * screens)


def control() -> ClientMessages:
    messages = ClientMessages(view=False)
    assert messages.feed(HELLO) == HELLO
    return messages


def view() -> ClientMessages:
    messages = ClientMessages(view=True)
    assert messages.feed(HELLO) == HELLO
    return messages


def test_control_passes_everything_as_it_came() -> None:
    messages = control()
    for message in (
        PIXEL_FORMAT,
        encodings(7, -309),
        UPDATE,
        KEY,
        pointer(1, 2),
        cut_text(b"hi"),
        CONTINUOUS,
        fence(b"abc"),
        XVP,
        resize(2),
        QEMU_KEY,
    ):
        assert messages.feed(message) == message
    assert messages.failure is None


def test_view_drops_every_kind_of_input() -> None:
    messages = view()
    for message in (
        KEY,
        pointer(1, 2),
        cut_text(b"hi"),
        cut_text(b"x" * 9, extended=True),
        XVP,
        resize(),
        QEMU_KEY,
    ):
        assert messages.feed(message) == b""
    assert messages.feed(UPDATE) == UPDATE
    assert messages.failure is None


def test_view_passes_what_is_needed_to_see() -> None:
    messages = view()
    for message in (PIXEL_FORMAT, UPDATE, CONTINUOUS, fence(b"1234"), fence(b"")):
        assert messages.feed(message) == message


def test_view_may_not_ask_for_the_clipboard_or_the_power_button() -> None:
    asked = encodings(7, 16, 0xC0A1E5CE - (1 << 32), -309, -259, -305, -223, 12345)
    assert view().feed(asked) == encodings(7, 16, -223)


def test_view_always_shares_the_desktop() -> None:
    messages = ClientMessages(view=True)
    assert messages.feed(b"RFB 003.008\n\x01\x00") == b"RFB 003.008\n\x01\x01"


def test_view_picks_the_harmless_messages_out_of_one_piece() -> None:
    piece = UPDATE + KEY + UPDATE + pointer(5, 5) + encodings(7, -309) + KEY + CONTINUOUS
    assert view().feed(piece) == UPDATE + UPDATE + encodings(7) + CONTINUOUS


def test_a_password_answer_belongs_to_the_handshake() -> None:
    messages = ClientMessages(view=True)
    hello = b"RFB 003.008\n\x02" + bytes(16) + b"\x01"
    assert messages.feed(hello + KEY + UPDATE) == hello + UPDATE


def test_version_3_3_chooses_no_security_type() -> None:
    messages = ClientMessages(view=True)
    assert messages.feed(b"RFB 003.003\n\x01" + UPDATE) == b"RFB 003.003\n\x01" + UPDATE


@pytest.mark.parametrize("is_view", [True, False])
@pytest.mark.parametrize("kind", [1, 7, 8, 100, 249, 252, 253, 254])
def test_an_unknown_message_ends_the_stream(kind: int, *, is_view: bool) -> None:
    messages = view() if is_view else control()
    assert messages.feed(UPDATE + bytes([kind]) + UPDATE) == UPDATE
    assert messages.failure is not None
    assert str(kind) in messages.failure
    assert messages.feed(UPDATE) == b""


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.1", b"RFB 003.0x8\n", b"RFB 003.008\n\x13"])
def test_another_protocol_ends_the_stream(hello: bytes) -> None:
    messages = ClientMessages(view=False)
    messages.feed(hello)
    assert messages.failure is not None


def test_audio_and_absurd_encoding_lists_end_the_stream() -> None:
    for message in (b"\xff\x01\x00\x00", b"\x02\x00\xff\xff"):
        messages = view()
        assert messages.feed(message) == b""
        assert messages.failure is not None


def test_real_input_is_counted_and_nothing_else() -> None:
    messages = control()
    for message in (PIXEL_FORMAT, encodings(7), UPDATE, UPDATE, CONTINUOUS, fence(b""), resize()):
        messages.feed(message)
    assert messages.inputs == 0
    for message in (KEY, QEMU_KEY, cut_text(b"hi"), XVP, pointer(1, 1), pointer(1, 1, 1)):
        before = messages.inputs
        messages.feed(message)
        assert messages.inputs == before + 1


def test_a_pointer_that_does_not_move_is_no_input() -> None:
    messages = control()
    messages.feed(pointer(7, 7))
    messages.feed(pointer(7, 7))
    assert messages.inputs == 1


def test_the_long_pointer_message_needs_its_extension() -> None:
    messages = control()
    messages.feed(encodings(7, rfb.EXTENDED_MOUSE_BUTTONS))
    messages.feed(long_pointer(1, 1) + KEY)
    assert (messages.inputs, messages.failure) == (2, None)
    # Without it, bit 7 is an eighth button in a message of six bytes.
    messages = control()
    messages.feed(pointer(1, 1, 0x80) + KEY)
    assert (messages.inputs, messages.failure) == (2, None)


def test_a_huge_clipboard_is_counted_not_kept() -> None:
    messages = view()
    assert messages.feed(struct.pack(">Bxxxi", 6, 100_000_000)) == b""
    for _ in range(100):
        assert messages.feed(bytes(1_000_000)) == b""
    assert messages.feed(UPDATE) == UPDATE
    assert len(messages._rest) == 0


numbers = st.integers(-(2**31), 2**31 - 1)
harmless = st.one_of(
    st.just(PIXEL_FORMAT),
    st.just(UPDATE),
    st.just(CONTINUOUS),
    st.binary(max_size=64).map(fence),
    st.lists(numbers, max_size=20).map(lambda each: encodings(*each)),
)
touching = st.one_of(
    st.just(KEY),
    st.just(XVP),
    st.just(QEMU_KEY),
    st.builds(pointer, st.integers(0, 9), st.integers(0, 9), st.integers(0, 127)),
    st.builds(cut_text, st.binary(max_size=300), extended=st.booleans()),
    st.integers(0, 3).map(resize),
)
conversation = st.lists(st.one_of(harmless, touching), max_size=30)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(borders)]


def run(is_view: bool, pieces: list[bytes]) -> tuple[bytes, int, str | None]:
    messages = ClientMessages(view=is_view)
    out = b"".join(bytes(messages.feed(memoryview(piece))) for piece in pieces)
    return out, messages.inputs, messages.failure


@given(conversation, st.lists(st.integers(0, 10_000), max_size=40), st.booleans())
def test_how_a_conversation_is_cut_changes_nothing(
    said: list[bytes], places: list[int], is_view: bool
) -> None:
    data = HELLO + b"".join(said)
    assert run(is_view, cut(data, places)) == run(is_view, [data])


@given(conversation, st.lists(st.integers(0, 10_000), max_size=40))
def test_control_sends_on_exactly_what_it_got(said: list[bytes], places: list[int]) -> None:
    data = HELLO + b"".join(said)
    out, _, failure = run(False, cut(data, places))
    assert (out, failure) == (data, None)


def kinds(stream: bytes) -> set[int]:
    """An independent, slow reading of what the server would see."""
    seen, at = set(), 0
    while at < len(stream):
        kind = stream[at]
        seen.add(kind)
        at += {0: 20, 3: 10, 150: 10}.get(kind) or (
            9 + stream[at + 8]
            if kind == 248
            else 4 + 4 * int.from_bytes(stream[at + 2 : at + 4])
            if kind == 2
            else 10_000_000
        )
    assert at == len(stream) or at >= 10_000_000
    return seen


@given(conversation, st.lists(st.integers(0, 10_000), max_size=40))
def test_no_input_of_a_guest_ever_reaches_the_server(said: list[bytes], places: list[int]) -> None:
    out, _, _ = run(True, cut(HELLO + b"".join(said), places))
    assert out.startswith(HELLO)
    assert kinds(out[len(HELLO) :]) <= rfb.FOR_VIEWERS


@given(st.binary(max_size=2000), st.lists(st.integers(0, 10_000), max_size=10), st.booleans())
def test_garbage_never_crashes_nor_leaks(data: bytes, places: list[int], greet: bool) -> None:
    hello = HELLO if greet else b""
    out, _, _ = run(True, cut(hello + data, places))
    if greet:
        assert kinds(out[len(HELLO) :]) <= rfb.FOR_VIEWERS
    else:
        assert len(out) <= len(data)
    passed, _, failure = run(False, cut(hello + data, places))
    assert (hello + data).startswith(passed)
    assert failure is not None or passed == hello + data
