"""A member of a remote archive as a stream: fetched in blocks that end where the member ends."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from stages.decode.archives.files import OpenFile, SeekableBytes

KEPT = 10  # blocks in memory of one stream: the index at the end of a film is still there when its end is reached


class MemberStream(SeekableBytes):
    """Reads `length` bytes from `start` on of a file. The next block is fetched ahead once two came in a row."""

    def __init__(self, file: OpenFile, start: int, length: int, block_bytes: int):
        super().__init__(length)
        self._file, self._start, self._block_bytes = file, start, block_bytes
        self._blocks: OrderedDict[int, bytes] = OrderedDict()  # by number, the one used last at the end
        self._ahead: tuple[int, Future[bytes]] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def readinto(self, buffer: Any) -> int:
        """Up to the end of the block in which the position is."""
        if self._position >= self._size:
            return 0
        number, offset = divmod(self._position, self._block_bytes)
        data = self._block(number)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._worker.shutdown(wait=True, cancel_futures=True)
            self._file.close()
        super().close()

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._blocks[number] = self._take_ahead(number) or self._fetch(number)
            while len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)
            following = number + 1
            reads_on = number - 1 in self._blocks and following * self._block_bytes < self._size
            if reads_on and following not in self._blocks and self._ahead is None:
                self._ahead = following, self._worker.submit(self._fetch, following)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _take_ahead(self, number: int) -> bytes | None:
        """The block that was fetched ahead if it is this one; another one is kept too: it has been paid for."""
        if self._ahead is None:
            return None
        (ahead, fetched), self._ahead = self._ahead, None
        data = fetched.result()
        if ahead == number:
            return data
        self._blocks[ahead] = data
        return None

    def _fetch(self, number: int) -> bytes:
        place = number * self._block_bytes
        data = self._file.read_at(self._start + place, min(self._block_bytes, self._size - place))
        if not data:
            raise OSError(f"the archive ends at byte {self._start + place}")
        return data
