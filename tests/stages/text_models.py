"""Small text encoders of transformers with random weights and a tokenizer of their own, saved as real ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ["<pad>", "</s>", "<unk>", "<s>", *(f"w{i}" for i in range(60))]
ENCODER = dict(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
LAYERS = dict(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=20, pad_token_id=0, bos_token_id=3, eos_token_id=1,
)  # fmt: skip
# name -> (class, class of its config, config); the second of each pair is the model as it is published whole.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "t5": ("T5EncoderModel", "T5Config", ENCODER),
    "t5 with decoder": ("T5ForConditionalGeneration", "T5Config", ENCODER),
    "umt5": ("UMT5EncoderModel", "UMT5Config", ENCODER),
    "clip text": ("CLIPTextModel", "CLIPTextConfig", LAYERS),
    "clip": (
        "CLIPModel",
        "CLIPConfig",
        dict(
            text_config=LAYERS,
            vision_config=dict(
                hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32,
                patch_size=16,
            ),
        ),
    ),
    "bert": ("BertModel", "BertConfig", LAYERS),
    "bert with head": ("BertForMaskedLM", "BertConfig", LAYERS),
    "roberta": ("RobertaModel", "RobertaConfig", LAYERS),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LAYERS),
}  # fmt: skip


def tokenizer(end: bool = True) -> Any:
    """Words w0 to w59, split at spaces; `end` has it put </s> behind every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    found = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if end:
        found.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=found, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )


def made(name: str) -> Any:
    """The network of that name, the same every time, with weights so large that every token shows."""
    import torch
    import transformers

    kind, config, options = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(transformers, kind)(getattr(transformers, config)(**options)).eval()
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.data.normal_(std=0.4)
    return network


def saved(name: str, folder: Path, end: bool = True) -> Path:
    made(name).save_pretrained(folder)
    tokenizer(end).save_pretrained(folder)
    return folder
