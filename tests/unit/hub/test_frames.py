"""The short way through frequent frames, held against the full parser."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, State
from websockets.server import ServerProtocol

from hub.frames import whole_texts
from hub.websocket import at_boundary

MOST = 70_000


def masked(payload: bytes, opcode: int = Opcode.TEXT, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), payload, fin).serialize(mask=True)


def open_parser() -> ServerProtocol:
    parser = ServerProtocol(state=State.OPEN, max_size=MOST)
    assert parser.side is SERVER
    return parser


def test_whole_messages_are_taken_and_the_rest_is_left() -> None:
    front = masked(b"one") + masked(b"x" * 200)
    rest = masked(b"three")[:-1]
    taken = list(whole_texts(front + rest, MOST))
    assert [message for message, _ in taken] == [b"one", b"x" * 200]
    assert taken[-1][1] == len(front)


def test_lengths_of_every_form() -> None:
    for length in (0, 1, 125, 126, 127, 128, 65_535):
        payload = b"a" * length
        assert list(whole_texts(masked(payload), MOST)) == [(payload, len(masked(payload)))]
    assert list(whole_texts(masked(b"a" * 65_536), MOST)) == []


def test_what_is_not_a_whole_plain_text_is_left() -> None:
    for frame in (
        masked(b"x", Opcode.BINARY),
        masked(b"x", Opcode.PING),
        masked(b"x", Opcode.CONT),
        masked(b"x", fin=False),
        Frame(Opcode.TEXT, b"x").serialize(mask=False),
        bytes([0xC1]) + masked(b"x")[1:],
        b"",
        b"\x81",
    ):
        assert list(whole_texts(frame, MOST)) == []


def test_a_message_above_the_limit_is_left() -> None:
    assert list(whole_texts(masked(b"x" * 101), 100)) == []
    assert [message for message, _ in whole_texts(masked(b"x" * 100), 100)] == [b"x" * 100]


def test_the_parser_is_at_a_boundary_only_between_frames() -> None:
    parser = open_parser()
    assert at_boundary(parser)
    frame = masked(b"hello")
    for cut in range(1, len(frame)):
        parser.receive_data(frame[:cut])
        assert not at_boundary(parser), cut
        parser.receive_data(frame[cut:])
        assert at_boundary(parser)
    parser.receive_data(b"\xff\xff")
    assert not at_boundary(parser)


frames = st.lists(
    st.builds(
        masked,
        st.binary(max_size=300),
        st.sampled_from([Opcode.TEXT, Opcode.TEXT, Opcode.TEXT, Opcode.BINARY]),
    ),
    max_size=8,
)


@given(frames, st.lists(st.integers(0, 2000), max_size=6))
def test_both_ways_together_read_what_the_parser_reads(sent: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(sent)
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    chunks = [stream[start:stop] for start, stop in pairwise(places)]
    reference, parser = open_parser(), open_parser()
    wanted: list[bytes] = []
    got: list[bytes] = []
    for chunk in chunks:
        reference.receive_data(chunk)
        wanted += [bytes(event.data) for event in reference.events_received() if isinstance(event, Frame)]
        if at_boundary(parser):
            end = 0
            for message, end in whole_texts(chunk, MOST):  # noqa: B007  # the last end counts
                got.append(message)
            chunk = chunk[end:]
        if chunk:
            parser.receive_data(chunk)
            got += [bytes(event.data) for event in parser.events_received() if isinstance(event, Frame)]
    assert got == wanted
