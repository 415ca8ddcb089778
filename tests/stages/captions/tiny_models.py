"""Random vision-language models of a few kilobytes, saved as a hub would have them."""

from __future__ import annotations

from pathlib import Path

CHAT = (
    "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)
WORDS = ["a", "red", "dog", "circle", "square", "moves", "turns", "left", "over", "the", "wet", "grass", "describe"]


def tokenizer(*special: str):
    """Words and, for what is none, letters; [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = [chr(code) for code in range(33, 127)]
    first = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *special]
    vocabulary = list(dict.fromkeys([*first, *WORDS, *letters, *("##" + letter for letter in letters)]))
    made = Tokenizer(models.WordPiece({word: place for place, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made, len(vocabulary)


def fast_tokenizer(*special: str):
    from transformers import PreTrainedTokenizerFast

    words, size = tokenizer(*special)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    more = {"additional_special_tokens": list(special)} if special else {}
    return PreTrainedTokenizerFast(tokenizer_object=words, **names, **more), size


def _from_start_to_end():
    """As BERT's tokenizer has it, which BLIP relies on."""
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])


def save_llava(folder: Path) -> Path:
    """A LLaVA: sees any number of pictures, speaks by a chat template."""
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    words, size = fast_tokenizer("<image>")
    side = {"height": 28, "width": 28}
    patches = {"patch_size": 14, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
    LlavaProcessor(CLIPImageProcessor(size=side, crop_size=side), words, chat_template=CHAT, **patches).save_pretrained(
        folder
    )
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", **layers, "num_hidden_layers": 2, "image_size": 28, "patch_size": 14,
        },
        text_config={
            "model_type": "llama", **layers, "num_hidden_layers": 1, "num_key_value_heads": 2, "vocab_size": size,
            "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return _save(LlavaForConditionalGeneration, config, folder)


def save_blip(folder: Path) -> Path:
    """A BLIP: one picture, goes on from the prompt."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    words, size = fast_tokenizer()
    words.backend_tokenizer.post_processor = _from_start_to_end()
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), words).save_pretrained(folder)
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = BlipConfig(
        vision_config={**layers, "image_size": 32, "patch_size": 16},
        text_config={
            **layers, "vocab_size": size, "encoder_hidden_size": 16, "max_position_embeddings": 64,
            "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
        },
        projection_dim=16, image_text_hidden_size=16,
    )  # fmt: skip
    return _save(BlipForConditionalGeneration, config, folder)


def _save(kind, config, folder: Path) -> Path:
    import torch
    from transformers import logging

    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8.0)  # what it sees must matter to what it says
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    return folder
