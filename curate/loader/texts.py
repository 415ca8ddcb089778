"""Chooses one of the texts of each clip for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.datasets.files import NUMPY, Dataset
from curate.errors import UserError
from curate.loader.order import BatchPlan
from curate.loader.permutation import key, uniform

CHOICE = 101  # the purpose of a key
MULTIPLE = 32  # tokens: texts are padded to a multiple, so that compiled networks see few shapes

TextShares = str | Sequence[tuple[str, float]] | None


@dataclass(frozen=True)
class TextChoice:
    """The text of each sample of a batch."""

    fields: np.ndarray  # (B,) number of the text field, -1 for the empty prompt
    tokens: np.ndarray  # (B,) length of the text


class Texts:
    """The texts of a dataset. `wanted` is a text field, or several with shares: [("text", 0.8), ("text_short", 0.2)].

    The draw follows from the seed and the sample's place in its bucket's stream. A sample without the drawn text gets
    the first that it has, and without any the encoded empty prompt.
    """

    def __init__(self, dataset: Dataset, wanted: str | Sequence[tuple[str, float]], seed: int):
        shares = [(wanted, 1.0)] if isinstance(wanted, str) else [(name, float(share)) for name, share in wanted]
        for name, share in shares:
            if name not in dataset.text:
                raise UserError(f"the dataset has no text {name!r}: {', '.join(dataset.text) or 'it has none'}")
            if not 0 <= share < np.inf:
                raise UserError(f"the share of text {name!r} is {share!r}: expected a number from 0 on")
        total = sum(share for _, share in shares)
        if not total:
            raise UserError("the shares of the texts are all 0")
        self.names = [name for name, _ in shares]
        self.dim = dataset.text[self.names[0]]["dim"]
        self.dtype = dataset.fields[self.names[0]]
        self.seed = seed
        self.cumulative = np.cumsum([share / total for _, share in shares])
        columns = dataset.columns(f"{name}_{what}" for name in self.names for what in ("tokens", "offset"))
        tokens = [columns[f"{name}_tokens"].to_numpy() for name in self.names]
        self.tokens = np.stack(tokens)
        self.there = np.stack([columns[f"{name}_offset"].to_numpy() >= 0 for name in self.names])
        empty = dataset.empty_text(self.names[0])
        if empty is None:
            if not self.there.any(axis=0).all():
                raise UserError(f"{dataset.folder} lacks empty_text.npy, which samples without text need")
            empty = np.zeros((0, self.dim), NUMPY[self.dtype])
        self.empty = np.ascontiguousarray(empty, NUMPY[self.dtype])  # (L, D)
        self.bytes_per_token = self.dim * self.empty.itemsize
        self.masks = {name: f"{name}_mask" for name in self.names if f"{name}_mask" in dataset.fields}
        self.most = max(int(self.tokens.max(initial=1)), len(self.empty), 1)

    def choose(self, plan: BatchPlan) -> TextChoice:
        """The texts of a global batch."""
        draw = uniform(plan.places, key(self.seed, CHOICE, plan.bucket))
        fields = np.searchsorted(self.cumulative, draw, "right").clip(max=len(self.names) - 1)
        return self.of(plan.rows, fields)

    def of(self, rows: np.ndarray, fields: np.ndarray) -> TextChoice:
        """The texts of samples for which these fields were drawn."""
        there = self.there[:, rows]
        fields = np.where(there[fields, np.arange(len(rows))], fields, np.where(there.any(0), there.argmax(0), -1))
        return TextChoice(fields, np.where(fields >= 0, self.tokens[fields, rows], len(self.empty)))

    def length(self, choice: TextChoice) -> int:
        """The length that texts are padded to: enough for all of the global batch, so the same on every rank."""
        longest = max(1, int(choice.tokens.max()))
        return max(longest, min(-(-longest // MULTIPLE) * MULTIPLE, self.most))
