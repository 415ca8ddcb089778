"""Byte ranges of a remote source over a socket: the parent fetches them, the decoder's child asks for them.

So the child needs neither credentials nor the network. The parent serves in a thread of its own, so that the child
can read while the parent's other threads do something else. The child asks for a block ahead where it reads on.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import BinaryIO

from stages.decode.reading import reason_of

BLOCK = 2**20  # bytes that the child asks for at a time
_REQUEST = struct.Struct("<QI")  # position and length, bytes
_ANSWER = struct.Struct("<?I")  # whether reading failed; length of what follows: bytes of the source, or the reason


def serve(stream: BinaryIO, channel: socket.socket) -> None:
    """The parent's side: answers requests until the other end is closed, then closes the stream and the channel."""
    with channel, contextlib.suppress(OSError), contextlib.closing(stream):
        while request := _receive(channel, _REQUEST.size):
            position, length = _REQUEST.unpack(request)
            try:
                failed, data = False, read_range(stream, position, min(length, BLOCK))
            except Exception as error:  # stores raise what they like
                failed, data = True, reason_of(error).encode("utf-8", "replace")
            channel.sendall(_ANSWER.pack(failed, len(data)))
            channel.sendall(data)


def read_range(stream: BinaryIO, position: int, length: int) -> bytes:
    """Up to `length` bytes from `position` on; b'' at the end."""
    if stream.tell() != position:  # a seek may drop what a store has read ahead
        stream.seek(position)
    return stream.read(length)


class RangeReader:
    """The child's side: `read_at(position, length)` by ranges, with one block in memory and one under way."""

    def __init__(self, channel: socket.socket, block_bytes: int = BLOCK):
        self._channel = channel
        self._block_bytes = block_bytes
        self._start, self._block = 0, bytearray()
        self._ahead: int | None = None  # position of the block that was asked for and not received yet

    def read_at(self, position: int, length: int) -> bytes:
        """Up to `length` bytes; b'' at the end of the source. Raises OSError with the parent's reason."""
        offset = position - self._start
        if not 0 <= offset < len(self._block):
            self._fetch(position)
            offset = 0
        return bytes(memoryview(self._block)[offset : offset + length])

    def close(self) -> None:
        self._channel.close()

    def _fetch(self, position: int) -> None:
        reads_on = bool(self._block) and position == self._start + len(self._block)
        if self._ahead is not None and self._ahead != position:
            with contextlib.suppress(OSError):  # nobody wants that block any more
                self._answer()
        if self._ahead is None:
            self._ask(position)
        self._start, self._block = position, bytearray()
        self._block = self._answer()
        if reads_on and self._block:
            self._ask(position + len(self._block))

    def _ask(self, position: int) -> None:
        self._channel.sendall(_REQUEST.pack(position, self._block_bytes))
        self._ahead = position

    def _answer(self) -> bytearray:
        self._ahead = None
        head = _receive(self._channel, _ANSWER.size)
        if not head:
            raise OSError("the parent process closed the source")
        failed, length = _ANSWER.unpack(head)
        data = _receive(self._channel, length)
        if failed:
            raise OSError(data.decode("utf-8", "replace"))
        return data


def _receive(channel: socket.socket, length: int) -> bytearray:
    """Exactly `length` bytes; none where the other end was closed before."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        got = channel.recv_into(view)
        if not got:
            return bytearray()
        view = view[got:]
    return data
