"""The figures of an audit counted again in plain Python, from the Parquet files of the tables alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

Row = dict[str, Any]
Answer = bool | None


def table(catalog: str, name: str) -> list[Row]:
    """All rows of a table, as its files hold them."""
    return DeltaTable(str(Path(catalog, name))).to_pyarrow_table().to_pylist()


def seconds(clip: Row) -> Fraction:
    """The length of a clip, exact to the microsecond."""
    return Fraction(round((clip["end_s"] - clip["start_s"]) * 1_000_000), 1_000_000)


def total(clips: Iterable[Row]) -> float:
    return float(sum((seconds(clip) for clip in clips), Fraction(0)))


class Recount:
    """Clips with what the gates answer of each; `judge` has the gates as functions of a row."""

    def __init__(self, catalog: str, judge: Sequence[Callable[[Row], Answer]], unknown: str = "keep"):
        self.sources = {row["source_id"]: row for row in table(catalog, "sources")}
        self.clips = table(catalog, "clips")
        self.judge, self.unknown = judge, unknown
        self.stages: dict[str, dict[str, Row]] = {}
        for name in ("captions", "duplicates", "clusters", "latents"):
            if Path(catalog, name).exists():
                self.stages[name] = {row["clip_id"]: row for row in table(catalog, name)}
        for clip in self.clips:
            answers = [gate(clip) for gate in judge]
            clip["answers"] = answers
            clip["passes"] = [self.passes(answer) for answer in answers]
            clip["kept"] = all(clip["passes"])

    def passes(self, answer: Answer) -> bool:
        return self.unknown == "keep" if answer is None else answer

    def of(self, stage: str, clip: Row, column: str) -> Any:
        """A value of a stage's row that is done; None where there is none."""
        row = self.stages.get(stage, {}).get(clip["clip_id"])
        return None if row is None or row.get("status", "done") != "done" else row[column]

    def encoded(self, clip: Row) -> bool:
        return self.of("latents", clip, "shard") is not None

    def lost_at(self, clip: Row) -> int:
        """The gate that loses a clip first; the number of gates if it is not encoded, one more if nothing does."""
        first = next((number for number, passes in enumerate(clip["passes"]) if not passes), None)
        return first if first is not None else len(self.judge) + self.encoded(clip)

    def by(self, value: Callable[[Row], Any]) -> dict[Any, list[Row]]:
        found = defaultdict(list)
        for clip in self.clips:
            found[value(clip)].append(clip)
        return dict(found)


def gini(counts: Iterable[int]) -> float:
    """Half the mean absolute difference over the mean, of all pairs."""
    counts = list(counts)
    differences = sum(abs(one - other) for one in counts for other in counts)
    return differences / (2 * len(counts) ** 2 * (sum(counts) / len(counts)))


def effective(counts: Iterable[int]) -> float:
    counts = list(counts)
    whole = sum(counts)
    return math.exp(-sum(count / whole * math.log(count / whole) for count in counts))


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between neighbours."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def classed(reason: str | None) -> str:
    return "unknown" if reason is None else reason.split(":")[0]


def index_row(clip: Row, counted: Recount) -> Row:
    """What the index of a dataset has of a clip, as far as an audit reads it."""
    source = counted.sources[clip["source_id"]]
    found = {"clip_id": clip["clip_id"], "source_id": clip["source_id"], "content_hash": source["content_hash"]}
    return found | {"weight": 1.0}
