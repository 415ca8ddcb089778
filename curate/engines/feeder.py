"""The feeder: a small actor between the driver, which lists, and Ray Data's read task.

A parcel is a few units that travel as one row of one block. The feeder holds each until the driver has it
back, so a read task or a worker that dies is given the same parcel again; and it counts the times a parcel or
a unit was begun, which is how a unit that kills its workers is found.
"""

from __future__ import annotations

import asyncio


class Feeder:
    """Async actor; the driver puts what it lost again when `born` shows that the actor was restarted."""

    def __init__(self) -> None:
        self.parcels: dict[int, bytes] = {}
        self.end: int | None = None
        self.finished: set[int] = set()
        self.begun: dict[int, dict[str, int]] = {}
        self.gone: dict[int, dict[str, int]] = {}
        self.changed = asyncio.Condition()
        self.token = id(self)

    async def born(self) -> int:
        return self.token

    async def put(self, parcels: dict[int, bytes], finished: list[int], end: int | None) -> None:
        async with self.changed:
            self.parcels.update(parcels)
            for index in finished:
                for table in (self.parcels, self.begun, self.gone):
                    table.pop(index, None)
                self.finished.add(index)
            if end is not None:
                self.end = end
            self.changed.notify_all()

    async def take(self, index: int) -> bytes | None:
        """Parcel number `index`, waiting for it; empty where it is back already, None behind the last."""
        async with self.changed:
            while True:
                if index in self.parcels:
                    return self.parcels[index]
                if index in self.finished:
                    return b""
                if self.end is not None and index >= self.end:
                    return None
                await self.changed.wait()

    async def begin(self, index: int, key: str) -> int:
        """How often work on a part of parcel `index` was begun, this time counted."""
        begun = self.begun.setdefault(index, {})
        begun[key] = begun.get(key, 0) + 1
        return begun[key]

    async def finish(self, index: int, key: str) -> None:
        self.begun.get(index, {}).pop(key, None)

    async def leave(self, index: int, key: str, rows: int) -> None:
        """So many rows are about to have left a worker that still works on the parcel."""
        gone = self.gone.setdefault(index, {})
        gone[key] = max(rows, gone.get(key, 0))

    async def left(self, index: int, key: str) -> int:
        return self.gone.get(index, {}).get(key, 0)
