"""What one worker of a pool does: parcels in, finished units out, and a unit that kills it found."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curate.engines.chain import run_stages
from stages.base import SettingsError, Stage
from stages.unit import Unit

SCHEMA = pa.schema([("index", pa.int64()), ("units", pa.large_binary())])
ROW_BYTES = 1 << 20  # finished units leave a worker in rows of about this size


class PoolWorker:
    """One worker of a pool: its stages set up once, then parcels in, finished units out.

    Ray gives the parcel of a worker that died to another, and passes on only rows behind those that had left
    already. So rows of a second try are never fewer than those of the first: units go one to a row then, and
    one that is given up is said so as often as it takes.
    """

    def __init__(self, stages: tuple[Stage, ...], name: str, feeder: Any, last: bool):
        self.stages, self.name, self.feeder, self.last = stages, name, feeder, last
        self.refusal: SettingsError | None = None
        try:
            for stage in stages:
                stage.setup()
        except SettingsError as error:
            self.refusal = error

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Settings that can't work end the run in the driver: they travel as a row of their own."""
        for index, blob in zip(*batch.to_pydict().values(), strict=True):
            if not blob:
                continue
            units = pickle.loads(blob)
            try:
                if self.refusal or isinstance(units, SettingsError):
                    raise self.refusal or units
                key = f"{self.name}/{units[0].unit_id}/{units[0].part}"
                first = self._ask("begin", index, key) == 1
                for row in self._rows(index, key, units) if first else self._one_by_one(index, key, units):
                    yield _row(index, row)
            except SettingsError as error:
                yield _row(index, SettingsError(str(error)))

    def _rows(self, index: int, key: str, units: list[Unit]) -> Iterator[list[Unit]]:
        out: list[Unit] = []
        size = rows = 0
        for unit in run_stages(self.stages, units):
            out.append(self._light(unit))
            size += _bytes(unit)
            if size >= ROW_BYTES or not unit.last:
                rows += 1
                self._ask("leave", index, key, rows)
                yield out
                out, size = [], 0
        if out:
            yield out

    def _one_by_one(self, index: int, key: str, units: list[Unit]) -> Iterator[list[Unit]]:
        """A parcel whose worker died before is taken apart: each unit is noted before it is begun."""
        rows = 0
        for unit in units:
            again = f"{key}/{unit.unit_id}"
            if self._ask("begin", index, again) > 1:
                given_up = unit.failed(f"{self.name}: its worker died twice on it")
                for _ in range(max(1, self._ask("left", index, key) + 1 - rows)):
                    rows += 1
                    yield [given_up]
                continue
            for part in run_stages(self.stages, [unit]):
                rows += 1
                self._ask("leave", index, key, rows)
                yield [self._light(part)]
            self._ask("finish", index, again)

    def _light(self, unit: Unit) -> Unit:
        """Behind the last pool nobody wants pixels: they must not travel to the driver."""
        if self.last:
            unit.pixels, unit.features = {}, {}
        return unit

    def _ask(self, what: str, *arguments: Any) -> Any:
        import ray

        return ray.get(getattr(self.feeder, what).remote(*arguments))


def _row(index: int, content: list[Unit] | SettingsError) -> pa.Table:
    return pa.table([[index], [pickle.dumps(content, protocol=5)]], schema=SCHEMA)


def _bytes(unit: Unit) -> int:
    pixels = sum(p.nbytes for frames in unit.pixels.values() for asked in frames.values() for _, p in asked)
    return pixels + 600 * sum(len(rows) for rows in unit.rows.values())
