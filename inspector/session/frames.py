"""How messages lie on a stream: a four-byte big-endian length, then one msgpack object.

Both ends use this and nothing else, so neither trusts the other: a length over `MAX_FRAME`, a body that is not msgpack,
an unknown message type and a field of the wrong type all raise `BadFrame`, and the caller drops that connection alone.
Imports no torch.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from array import array
from typing import TYPE_CHECKING

import msgspec

from inspector.session.protocol import ContextScores, Floats, Generated, Message, SessionMessage, ViewMessage

if TYPE_CHECKING:
    from asyncio import StreamReader

HEADER = struct.Struct(">I")
MAX_FRAME = 64 * 1024 * 1024
"""Bytes. A 1024-token context with 40 SAEs is under 1 MB; anything larger than this is not ours."""

_encoder = msgspec.msgpack.Encoder()
_view_decoder: msgspec.msgpack.Decoder[ViewMessage] = msgspec.msgpack.Decoder(ViewMessage)
_session_decoder: msgspec.msgpack.Decoder[SessionMessage] = msgspec.msgpack.Decoder(SessionMessage)


class BadFrame(ValueError):
    """The other end does not speak this protocol; the connection cannot be continued."""


def encode(message: Message) -> bytes:
    """One frame, header included; ValueError if the message is larger than `MAX_FRAME` (a bug on this side)."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise ValueError(
            f"A {type(message).__name__} of {len(body)} bytes is larger than a frame may be ({MAX_FRAME})."
        )
    return HEADER.pack(len(body)) + body


def is_last(message: SessionMessage) -> bool:
    """Whether an answer is the last one to its request."""
    if isinstance(message, ContextScores):
        return not message.waiting
    return not isinstance(message, Generated) or message.finished


def decode_view(body: bytes) -> ViewMessage:
    """What a view asked; BadFrame if it is not a view's message."""
    try:
        return _view_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(f"Not a message of a view: {error}") from error


def decode_session(body: bytes) -> SessionMessage:
    """What a session told; BadFrame if it is not a session's message."""
    try:
        return _session_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(f"Not a message of a session: {error}") from error


async def read_frame(reader: StreamReader, limit: int = MAX_FRAME) -> bytes | None:
    """The next frame's body; None when the other end has closed between frames.

    Raises:
        BadFrame: the length is over the limit, or the stream ends inside a frame.
    """
    try:
        header = await reader.readexactly(HEADER.size)
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise BadFrame("The connection ended inside a frame's length.") from end
        return None
    (length,) = HEADER.unpack(header)
    if length > limit:
        raise BadFrame(f"A frame of {length} bytes is larger than {limit}.")
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as end:
        raise BadFrame("The connection ended inside a frame.") from end


def pack(values: array[float]) -> Floats:
    """Pack an array('f') for the wire."""
    return _little_endian(values).tobytes()


def unpack(data: Floats) -> array[float]:
    """Array of float32 from the wire; ValueError if the length is not a multiple of four."""
    return _little_endian(array("f", data))


def _little_endian(values: array[float]) -> array[float]:
    """The same numbers in the wire's byte order, or from it in this machine's."""
    if sys.byteorder == "big":
        values = array("f", values)
        values.byteswap()
    return values
