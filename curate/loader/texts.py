"""Which of a clip's texts a batch takes, and how long they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.datasets.files import NUMPY, Dataset
from curate.errors import UserError
from curate.loader.order import Plan
from curate.loader.permutation import key, uniform

CHOICE = 101  # what a key is for
MULTIPLE = 32  # tokens: few lengths make few shapes, which compiled networks like

Asked = str | Sequence[tuple[str, float]] | None


@dataclass(frozen=True)
class Choice:
    """For each sample of a batch the number of its text field (or -1 of the empty prompt) and its tokens."""

    fields: np.ndarray
    tokens: np.ndarray


class Texts:
    """`asked`: a text field, or several with their shares: [("text", 0.8), ("text_short", 0.2)]. The draw follows from
    the seed and the sample's place in its bucket's stream. A sample without that text has the first that it has, and
    without any the encoded empty prompt.
    """

    def __init__(self, dataset: Dataset, asked: str | Sequence[tuple[str, float]], seed: int):
        shares = [(asked, 1.0)] if isinstance(asked, str) else [(name, float(share)) for name, share in asked]
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

    def choose(self, plan: Plan) -> Choice:
        """The texts of a global batch."""
        draw = uniform(plan.places, key(self.seed, CHOICE, plan.bucket))
        fields = np.searchsorted(self.cumulative, draw, "right").clip(max=len(self.names) - 1)
        return self.of(plan.rows, fields)

    def of(self, rows: np.ndarray, fields: np.ndarray) -> Choice:
        """What samples have, of which these fields were drawn."""
        there = self.there[:, rows]
        fields = np.where(there[fields, np.arange(len(rows))], fields, np.where(there.any(0), there.argmax(0), -1))
        return Choice(fields, np.where(fields >= 0, self.tokens[fields, rows], len(self.empty)))

    def length(self, choice: Choice) -> int:
        """The tokens that a batch is padded to: enough for all of the global batch, the same on every rank."""
        longest = max(1, int(choice.tokens.max()))
        return max(longest, min(-(-longest // MULTIPLE) * MULTIPLE, self.most))
