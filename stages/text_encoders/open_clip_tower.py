"""Runs the text towers of OpenCLIP: the states of every token after the last norm, before they are pooled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stages.base import SettingsError
from stages.pretrained.open_clip_model import load_model
from stages.text_encoders.describe import describe_text, open_clip_spec
from stages.text_encoders.encoder import TextEncoder
from stages.text_encoders.settings import TextEncoderSettings


class OpenClipTower(TextEncoder):
    dtype: torch.dtype
    norm: torch.nn.Module
    context: int  # tokens that the tower always sees, padding counted
    tokenizer: Any  # open_clip's
    inner: Any  # the tokenizer of transformers inside it, or None
    pad: int

    @classmethod
    def load(cls, settings: TextEncoderSettings, device: str, dtype: str) -> OpenClipTower:
        info = describe_text(settings)
        model = load_model(open_clip_spec(settings), device, dtype)
        tower = getattr(model.network, "text", model.network)
        if not hasattr(tower, "ln_final"):
            raise SettingsError(f"model {info['encoder']}: its text tower has no last norm (ln_final)")
        made = cls(info, model.network, device)
        made.dtype, made.norm, made.context = getattr(torch, dtype), tower.ln_final, tower.context_length
        made.tokenizer = model.tokenizer()
        made.inner = getattr(made.tokenizer, "tokenizer", None)
        made.pad = getattr(made.inner, "pad_token_id", None) or 0
        return made

    def truncated(self, text: str) -> bool:
        if self.inner is None:
            return len(self.tokenizer.encode(text)) + 2 > self.max_tokens  # a start and an end
        return len(self.inner(self.tokenizer.clean_fn(text), verbose=False).input_ids) > self.max_tokens

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        rows = self.tokenizer(texts, context_length=self.max_tokens).tolist() if texts else []
        return [row[: self._length(row)] for row in rows]

    def _length(self, row: list[int]) -> int:
        """Tokens without the padding at the end. ("!" is token 0 too, which pads, so only trailing zeros count.)"""
        count = next((place for place in range(len(row), 0, -1) if row[place - 1] != self.pad), 0)
        ends = self.inner is not None and self.inner.eos_token_id == self.pad  # SigLIP pads with its end token
        return max(1, min(count + ends, len(row)))

    def _states(self, tokens: list[list[int]]) -> Tensor:
        """Padded to the tower's context: some towers (SigLIP) attend to the padding, as they were trained to."""
        rows = [row + [self.pad] * (self.context - len(row)) for row in tokens]
        found: list[Tensor] = []
        kept = self.norm.register_forward_hook(lambda module, inputs, output: found.append(output))
        try:
            reduced = self.dtype != torch.float32
            with torch.autocast(self.device.split(":")[0], dtype=self.dtype, enabled=reduced):
                self.network.encode_text(torch.tensor(rows, device=self.device))
        finally:
            kept.remove()
        if len(found) != 1 or found[0].shape[:2] != (len(rows), self.context):
            raise SettingsError(f"model {self.info['encoder']}: its text tower has no states of its own tokens")
        return found[0]

    def _batches(self, lengths: list[int]) -> list[list[int]]:
        return super()._batches([self.context] * len(lengths))
