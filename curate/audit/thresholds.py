"""The numbers in a gate's condition that a signal is compared with, and the condition with another number there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from curate.catalog.gates import Gate
from curate.catalog.syntax_tree import nodes, parse

FRAME = "SELECT ("  # what stands before the condition where its places are counted from
ORDER = {
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
}
TURNED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}


@dataclass(frozen=True)
class Threshold:
    """A number that a condition compares with by order: `motion >= 0.25` has one, `BETWEEN 10 AND 245` two."""

    signal: str | None  # the column that is compared; None for an expression of columns
    operator: str  # of 'signal operator value'
    value: float
    start: int  # where the number stands in the condition, in bytes of UTF-8
    end: int

    def is_of(self, signal: str) -> bool:
        """Whether the number is compared with this column, whose name SQL takes in either case."""
        return self.signal is not None and self.signal.lower() == signal.lower()

    def times(self, factor: float) -> float:
        """The value times `factor`, without the noise of binary fractions."""
        return float(f"{self.value * factor:.12g}")

    def put(self, gate: Gate, value: float) -> Gate:
        """The gate with `value` in the place of this number."""
        text, number = gate.where.encode(), f"({value!r})" if value < 0 else repr(value)
        where = text[: self.start] + number.encode() + text[self.end :]
        return gate.model_copy(update={"where": where.decode()})


def thresholds(connection: duckdb.DuckDBPyConnection, gate: Gate) -> list[Threshold]:
    """The thresholds of a gate, which was checked when it was put in force, in the order of its text."""
    text = f"{FRAME}{gate.where}\n) FROM clips"
    tree = parse(connection, text)
    if tree["error"]:
        return []
    found = [each for node in nodes(tree["statements"][0]["node"]["select_list"]) for each in _of_node(node)]
    return sorted(found, key=lambda each: each.start)


def _of_node(node: dict[str, Any]) -> Iterator[Threshold]:
    if (sign := ORDER.get(node.get("type", ""))) is not None:
        left, right = node["left"], node["right"]
        if (value := _literal(right)) is not None and _literal(left) is None:
            yield _threshold(left, sign, value, right)
        elif (value := _literal(left)) is not None and _literal(right) is None:
            yield _threshold(right, TURNED[sign], value, left)
    elif node.get("class") == "BETWEEN":
        for sign, side in ((">=", node["lower"]), ("<=", node["upper"])):
            if (value := _literal(side)) is not None:
                yield _threshold(node["input"], sign, value, side)


def _threshold(compared: dict[str, Any], sign: str, value: float, number: dict[str, Any]) -> Threshold:
    signal = compared["column_names"][-1] if compared.get("class") == "COLUMN_REF" else None
    start = number["query_location"] - len(FRAME)
    return Threshold(signal, sign, value, start, start + number["query_location_length"])


def _literal(node: dict[str, Any]) -> float | None:
    """The value of a number in the text; None for anything else."""
    found = node.get("literal") if node.get("class") == "CONSTANT" else None
    if not found or found.get("kind") not in ("INTEGER", "NUMERIC"):
        return None
    try:
        value = float(found["text"].replace("_", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
