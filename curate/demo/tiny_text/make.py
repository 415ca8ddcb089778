"""Writes the tiny text encoder again: `python -m curate.demo.tiny_text.make [-o FOLDER]`, one second.

One layer of BERT (Devlin et al. 2019) with random weights, and the tokenizer of the tiny OpenCLIP model: one token for
each word. Word vectors are larger than position vectors, and the layer adds little, so a token's state identifies its
word.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from curate.demo import tiny_clip
from curate.demo.tiny_text import FOLDER

SEED = 0
WORDS, WIDTH, TOKENS = 58, 64, 32
SPREAD = 0.1  # standard deviation of word vectors; positions and weights have transformers' 0.02


def make(folder: Path) -> None:
    """Writes config, weights and tokenizer into `folder`."""
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=WIDTH,
        max_position_embeddings=TOKENS,
        pad_token_id=0,
    )
    network = BertModel(config, add_pooling_layer=False)
    torch.nn.init.normal_(network.embeddings.word_embeddings.weight, std=SPREAD)
    network.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_clip.FOLDER / name, folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, metavar="FOLDER")
    make(parser.parse_args().output)
