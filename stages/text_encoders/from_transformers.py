"""Text encoders of transformers: T5, UMT5, CLIP, BERT and whatever else gives a last hidden state for each token."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

from torch import Tensor

from stages.base import SettingsError, one_line
from stages.text_encoders.describe import describe_text, transformers_files
from stages.text_encoders.encoder import TextEncoder
from stages.text_encoders.settings import TextEncoderSettings

# Those whose AutoModel is more than the text encoder, or another one.
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
        if importlib.util.find_spec("transformers") is None:
            raise SettingsError(f"model {settings.model!r} needs transformers: pip install 'clipmill[caption]'")
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
        except Exception as error:  # every way in which a folder can be no such model
            raise SettingsError(f"model {settings.model!r} can't be loaded: {one_line(error)[:300]}") from error
        # transformers would go on with random numbers in their place; a pooler is nothing that is asked for here.
        if missing := sorted(name for name in found["missing_keys"] if "pooler" not in name):
            lacks = f"lacks {len(missing)} of its weights, {missing[0]} among them"
            raise SettingsError(f"model {settings.model!r} {lacks}")
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
        """What stands for a text without a token: language models often add neither a start nor an end to one."""
        kinds = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
        return next((token for token in kinds if token is not None), 0)

    def _states(self, tokens: list[list[int]]) -> Tensor:
        import torch

        longest = max(map(len, tokens))
        pad = self.tokenizer.pad_token_id or 0  # what stands there is masked
        ids = torch.tensor([each + [pad] * (longest - len(each)) for each in tokens], device=self.device)
        own = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in tokens], device=self.device)
        return self.network(input_ids=ids, attention_mask=own).last_hidden_state
