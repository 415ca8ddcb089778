"""The type of a manifest's column, from all of its cells: what they are, and the range of the whole numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from curate.catalog.schema import BIGINT, DOUBLE, TEXT, TIME, duckdb_type
from curate.errors import UserError

Kind = Literal["boolean", "integer", "float", "date", "timestamp", "text", "digits", "token"]

LARGE = pa.decimal128(20, 0)  # whole numbers up to those of 64 bits without a sign, which Delta Lake has no type for
DIGITS = 20  # of the numbers that fit LARGE
EXACT = 2**53  # the whole numbers up to here are floating-point numbers too


@dataclass
class Cells:
    """What the cells of one column are; empty ones do not count.

    `digits` are cells of digits that are no number: leading zeros, or too many of them. A `token` is a word that tables
    write for an empty cell (NA, null): it is empty among numbers and a text among texts.
    """

    kinds: set[Kind] = field(default_factory=set)
    least: int = 0  # of the whole numbers
    greatest: int = 0
    example: str = ""  # a cell that is no number

    def see(self, kind: Kind) -> None:
        self.kinds.add(kind)

    def see_range(self, least: int, greatest: int) -> None:
        """Takes note of whole numbers between two values, both of which stand in a cell."""
        self.kinds.add("integer")
        self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)

    def see_text(self, example: str, digits: bool = False) -> None:
        if "text" not in self.kinds:
            self.example = example
        self.kinds.add("digits" if digits else "text")

    def type(self) -> pa.DataType | None:
        """The narrowest type that keeps every cell as it is written; None for a column of empty cells."""
        kinds = self.kinds - {"token"} or self.kinds
        if not kinds:
            return None
        if kinds == {"integer"}:
            return integer_type(self.least, self.greatest) or TEXT
        if kinds <= {"integer", "float"}:
            return DOUBLE if self.least >= -EXACT and self.greatest <= EXACT else TEXT
        one = next(iter(kinds)) if len(kinds) == 1 else "text"
        return {"boolean": pa.bool_(), "date": pa.date32(), "timestamp": TIME}.get(one, TEXT)

    @property
    def are_numerals(self) -> bool:
        """Whether all cells are written in digits, so that numbers may become texts beside them."""
        return self.kinds <= {"integer", "digits"}


def integer_type(least: int, greatest: int) -> pa.DataType | None:
    """The type for whole numbers in a range, None where they have too many digits."""
    if least >= -(2**63) and greatest < 2**63:
        return BIGINT
    return LARGE if max(-least, greatest) < 10**DIGITS else None


def widened(stored: pa.DataType, found: pa.DataType, numerals: bool) -> pa.DataType | None:
    """The type that holds the values of both types unchanged; None where there is none.

    Everything can be written into a stored column of texts; a stored number becomes a text only for `numerals`.
    """
    if stored in (found, TEXT):
        return None if pa.types.is_binary(found) and stored != found else stored
    if found == TEXT:
        return TEXT if numerals and (pa.types.is_integer(stored) or pa.types.is_decimal(stored)) else None
    numbers = {stored, found}
    if numbers == {BIGINT, DOUBLE}:
        return DOUBLE
    digits = [_digits(kind) for kind in (stored, found)]
    if None in digits:
        return None
    whole, places = (max(d[i] for d in digits if d) for i in (0, 1))
    return pa.decimal128(whole + places, places) if whole + places <= 38 else None


def _digits(kind: pa.DataType) -> tuple[int, int] | None:
    """Digits before and behind the point that a type of exact numbers has."""
    if kind == BIGINT:
        return 19, 0
    return (kind.precision - kind.scale, kind.scale) if pa.types.is_decimal(kind) else None


def joined(stored: pa.DataType | None, found: pa.DataType, numerals: bool, what: str, example: str = "") -> pa.DataType:
    """The type of a column that is stored as one type and comes as another. UserError, naming both, for none.

    `what` names the column and the manifest.
    """
    kind = found if stored is None else widened(stored, found, numerals)
    if kind is None:
        assert stored is not None
        shown = f" ({example[:80]!r})" if example else ""
        raise UserError(
            f"{what} is {duckdb_type(stored)} in the catalog, but now comes as {duckdb_type(found)}{shown}: "
            "give it one type or another name"
        )
    return kind
