"""Base of text encoders: texts to the hidden states of a language model, one vector for each token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BATCH_TOKENS = 16384  # in one forward pass, padding counted; bounds the memory


class TextEncoder(ABC):
    """`info` is what `describe_text` says of it."""

    def __init__(self, info: dict[str, Any], network: Any, device: str):
        self.info, self.network, self.device = info, network, device
        self.max_tokens: int = info["max_tokens"]
        self._empty: np.ndarray | None = None

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Last hidden states of each text, (L, D) float16, L its own number of tokens (special ones among them),
        `max_tokens` at most: the end of longer ones is not seen, see `truncated`.

        Texts of similar length are batched; the result of a text does not depend on its batch. Raises ValueError for a
        value that is not finite in float16; it is never replaced.
        """
        import torch

        tokens = self._tokens(list(texts))
        found: list[np.ndarray] = [np.empty(0)] * len(tokens)
        with torch.inference_mode():
            for batch in self._batches([len(each) for each in tokens]):
                states = self._states([tokens[place] for place in batch])
                for place, state in zip(batch, states, strict=True):
                    found[place] = self._kept(state[: len(tokens[place])], texts[place])
        return found

    def empty(self) -> np.ndarray:
        """The encoded empty prompt, (L, D) float16."""
        if self._empty is None:
            (self._empty,) = self.encode([""])
        return self._empty

    @abstractmethod
    def truncated(self, text: str) -> bool:
        """Whether the text has more tokens than are encoded."""

    @abstractmethod
    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text, special ones among them, cut to `max_tokens`."""

    @abstractmethod
    def _states(self, tokens: list[list[int]]) -> Tensor:
        """Hidden states (B, L, D), L at least the longest text; those after a text's own tokens are ignored."""

    def _batches(self, lengths: list[int]) -> list[list[int]]:
        """Indices of the texts in batches of at most BATCH_TOKENS, the shortest first."""
        batches: list[list[int]] = []
        for place in sorted(range(len(lengths)), key=lengths.__getitem__):
            if not batches or (len(batches[-1]) + 1) * lengths[place] > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(place)
        return batches

    def _kept(self, state: Tensor, text: str) -> np.ndarray:
        with np.errstate(over="ignore"):  # raised below
            found = state.float().cpu().numpy().astype(np.float16)
        if not np.isfinite(found).all():
            raise ValueError(f"{self.info['encoder']} gives numbers that float16 can't hold for {text[:60]!r}")
        return found
