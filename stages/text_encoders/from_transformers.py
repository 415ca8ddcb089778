"""Runs text encoders of transformers: T5, UMT5, CLIP, BERT and others that give a last hidden state for each token."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from stages.base import SettingsError, one_line
from stages.pretrained.model_files import refuse_missing_weights
from stages.pretrained.packages import require_packages
from stages.text_encoders.describe import describe_text, transformers_files
from stages.text_encoders.encoder import TextEncoder
from stages.text_encoders.settings import TextEncoderSettings

# Model types whose AutoModel is more than the text encoder, or another model.
CLASSES = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
}


class TransformersEncoder(TextEncoder):
    tokenizer: Any

    @classmethod
    def load(cls, settings: TextEncoderSettings, device: str, dtype: str) -> TransformersEncoder:
        require_packages("transformers", extra="caption")
        import torch
        import transformers

        info = describe_text(settings)
        files, tokenizer = transformers_files(settings)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        kind = getattr(transformers, CLASSES.get(files.config["model_type"], "AutoModel"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tokens = transformers.AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
                network, found = kind.from_pretrained(
                    str(files.folder), dtype=getattr(torch, dtype), output_loading_info=True, local_files_only=True
                )
        except Exception as error:  # transformers has many classes of errors for a damaged folder
            raise SettingsError(f"model {settings.model!r} can't be loaded: {one_line(error)[:300]}") from error
        # The pooler is not used here.
        missing = (name for name in found["missing_keys"] if "pooler" not in name)
        refuse_missing_weights(f"model {settings.model!r}", missing)
        if getattr(network.config, "is_encoder_decoder", False) and hasattr(network, "get_encoder"):
            network = network.get_encoder()
        made = cls(info, network.to(device).eval().requires_grad_(False), device)
        made.tokenizer = tokens
        return made

    def truncated(self, text: str) -> bool:
        return len(self.tokenizer(text, verbose=False).input_ids) > self.max_tokens

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        # The tokenizer's own limit is that of what it was trained with, not of the model.
        if not texts:
            return []
        found = self.tokenizer(texts, truncation=True, max_length=self.max_tokens, verbose=False).input_ids
        return [list(each) or [self._blank()] for each in found]

    def _blank(self) -> int:
        """The token for a text that gives none: language models often add neither a start nor an end token."""
        kinds = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
        return next((token for token in kinds if token is not None), 0)

    def _states(self, tokens: list[list[int]]) -> Tensor:
        import torch

        longest = max(map(len, tokens))
        pad = self.tokenizer.pad_token_id or 0  # masked, so any token will do
        ids = torch.tensor([each + [pad] * (longest - len(each)) for each in tokens], device=self.device)
        mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in tokens], device=self.device)
        return self.network(input_ids=ids, attention_mask=mask).last_hidden_state
