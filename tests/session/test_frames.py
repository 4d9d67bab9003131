"""Frames: what comes out is what went in, and nothing else gets through."""

import asyncio
import contextlib
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.session import frames
from inspector.session.cards import SaeScores
from inspector.session.frames import MAX_FRAME, pack, unpack
from inspector.session.protocol import Failed, Find, GetContext, Hello


async def read(data: bytes, limit: int = MAX_FRAME) -> bytes | None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await frames.read_frame(reader, limit)


async def test_a_message_survives_the_frame() -> None:
    message = Find(request=7, text="日本\x00\x1b[31m")
    body = await read(frames.encode(message))
    assert body is not None
    assert frames.decode_view(body) == message


def test_the_length_is_four_bytes_big_endian() -> None:
    frame = frames.encode(GetContext(request=1, context=2))
    assert struct.unpack(">I", frame[:4])[0] == len(frame) - 4


def test_numbers_travel_as_little_endian_float32() -> None:
    values = array("f", [1.0, -0.5, float("inf")])
    assert pack(values) == struct.pack("<3f", 1.0, -0.5, float("inf"))
    assert unpack(pack(values)) == values
    with pytest.raises(ValueError, match="multiple"):
        unpack(b"\x00\x00\x00")


async def test_the_end_between_frames_is_no_error_and_inside_one_is() -> None:
    frame = frames.encode(Hello(request=1))
    assert await read(b"") is None
    for cut in range(1, len(frame)):
        with pytest.raises(frames.BadFrame, match="inside a frame"):
            await read(frame[:cut])


async def test_a_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    with pytest.raises(frames.BadFrame, match="larger than"):
        await read(struct.pack(">I", MAX_FRAME + 1))
    with pytest.raises(frames.BadFrame, match="larger than 10"):
        await read(struct.pack(">I", 11) + b"x" * 11, limit=10)


def test_a_message_of_the_other_side_is_refused() -> None:
    body = frames.encode(Failed(request=1, exit_code=3, message="no"))[4:]
    assert frames.decode_session(body).request == 1
    with pytest.raises(frames.BadFrame):
        frames.decode_view(body)


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_a_message_or_a_bad_frame(body: bytes) -> None:
    for decode in (frames.decode_view, frames.decode_session):
        with contextlib.suppress(frames.BadFrame):
            decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x81" * 5000,  # maps in maps: no recursion error may escape
        b"\xdf\xff\xff\xff\xff",  # a map that claims four thousand million entries
        b"\x82\xa4type\xa4Find\xa4text\x01",  # a number where a text belongs
        b"\x81\xa4type\xa4Nope",
        b"\x83\xa4type\xaaGetContext\xa7context\x01\xa7request\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    ],
)
def test_hostile_bodies_are_bad_frames(body: bytes) -> None:
    with pytest.raises(frames.BadFrame):
        frames.decode_view(body)


def test_unknown_fields_are_ignored_so_that_the_protocol_can_grow() -> None:
    import msgspec

    body = msgspec.msgpack.encode({"type": "GetContext", "request": 1, "context": 2, "later": True})
    assert frames.decode_view(body) == GetContext(request=1, context=2)


def test_a_message_too_large_for_a_frame_is_a_bug_here() -> None:
    scores = SaeScores(l0=b"", sae_error_norm=b"", linear_error_norm=b"", nonlinear_error_norm=b"\x00" * MAX_FRAME)
    from inspector.session.protocol import ContextScores

    huge = ContextScores(
        source="context",
        context=0,
        epoch=0,
        name="",
        token_ids=[],
        tokens=[],
        split="",
        loss=b"",
        x_norm=b"",
        saes=[scores],
    )
    with pytest.raises(ValueError, match="larger than a frame"):
        frames.encode(huge)
