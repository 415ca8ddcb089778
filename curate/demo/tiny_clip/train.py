"""Trains the tiny OpenCLIP model again: `python -m curate.demo.tiny_clip.train`, about ten minutes of one core.

CLIP's contrastive training (Radford et al. 2021). One text is true of many pictures of a batch, so the target of a row
is shared among all of its matches (as in supervised contrastive learning, Khosla et al. 2020). Writes OpenCLIP's files
(config, tokenizer, float16 weights) over those that ship, and prints how well text finds scenes that are new to it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from curate.demo.tiny_clip import FOLDER
from curate.demo.tiny_clip.examples import Examples, describe, draw_examples, matches, vocabulary

if TYPE_CHECKING:
    from torchvision.transforms import Compose

SEED = 0
SIDE = 64  # pixels of a picture's side
SCENES = 14_000
MOMENTS = 3  # pictures of one scene
STEPS = 1_700
BATCH = 256
RATE = 2e-3  # learning rate after a warm-up of 100 steps, with cosine decay to 0
HELD_OUT = 500  # scenes for the figures at the end

CONTEXT = 32  # tokens
MEAN = STD = (0.5, 0.5, 0.5)


def config(words: int) -> dict[str, Any]:
    """OpenCLIP's config of the model: a small ResNet and a text transformer of two layers."""
    text: dict[str, Any] = {"context_length": CONTEXT, "vocab_size": words, "width": 64, "heads": 2, "layers": 2}
    text |= {"hf_tokenizer_name": "tokenizer.json"}  # makes OpenCLIP read the tokenizer in this folder
    vision = {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    return {"model_cfg": {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": preprocess}


def write_tokenizer(folder: Path) -> int:
    """Writes a tokenizer with one token for each word; returns the number of tokens. <end> has the highest number,
    since OpenCLIP pools at the highest.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    tokens = ["<pad>", "<unknown>", *vocabulary(), "<start>", "<end>"]
    number = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(number, unk_token="<unknown>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}]+"), "removed")
    ends = [(token, number[token]) for token in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"pad_token": "<pad>", "unk_token": "<unknown>", "bos_token": "<start>", "eos_token": "<end>"}
    about = named | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n")
    return len(tokens)


def fit_like(preprocess: Compose) -> Callable[[np.ndarray], np.ndarray]:
    """The resize and crop of OpenCLIP's preprocessing, without its conversion to tensors."""
    from PIL import Image

    shape = [step for step in preprocess.transforms if type(step).__name__ in ("Resize", "CenterCrop")]

    def fit(frame: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(frame)
        for step in shape:
            picture = step(picture)
        return np.asarray(picture)

    return fit


def as_input(pictures: np.ndarray) -> torch.Tensor:
    """(n, side, side, 3) uint8 to (n, 3, side, side) float32 as the model takes it."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def train(
    model: open_clip.CLIP,
    tokenizer: Callable[[list[str]], torch.Tensor],
    examples: Examples,
    rng: np.random.Generator,
    steps: int,
    batch: int = BATCH,
) -> None:
    """Trains the model in place."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98))
    warming = min(100, steps // 2)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, warming)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warming)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, fall], [warming])
    model.train()
    began, running = time.monotonic(), 0.0
    for step in range(steps):
        chosen = rng.choice(len(examples.pictures), batch, replace=False)
        shown = examples.shown[chosen]
        texts, mentioned = zip(*(describe(row, rng) for row in shown), strict=True)
        true = torch.from_numpy(matches(shown, np.array(mentioned))).float()  # (texts, pictures)
        pixels = as_input(examples.pictures[chosen])
        pixels += torch.from_numpy(rng.normal(0, 0.03, (batch, 1, 1, 1)).astype(np.float32))  # exposure
        pictures, words, scale = model(pixels, tokenizer(list(texts)))
        logits = scale * words @ pictures.T  # (texts, pictures)
        by_text = F.cross_entropy(logits, true / true.sum(1, keepdim=True))
        by_picture = F.cross_entropy(logits.T, true.T / true.T.sum(1, keepdim=True))
        loss = (by_text + by_picture) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        running = loss.item() if not step else 0.98 * running + 0.02 * loss.item()
        if step % 200 == 199:
            rate = (step + 1) / (time.monotonic() - began)
            print(f"step {step + 1}: loss {running:.3f}, scale {scale.item():.1f}, {rate:.1f} steps/s", flush=True)
    model.eval()


@torch.no_grad()
def figures(
    model: open_clip.CLIP,
    tokenizer: Callable[[list[str]], torch.Tensor],
    examples: Examples,
    rng: np.random.Generator,
) -> dict[str, float]:
    """How well texts find held-out scenes: the share of texts whose first hit is true, and recall at five.

    A scene's vector is the mean of its pictures' unit vectors, as the stage `embed` pools them. Recall at five of a
    text is the number of true scenes among its first five, divided by the most that could be there.
    """
    vectors = torch.cat([model.encode_image(as_input(part), normalize=True) for part in _parts(examples.pictures)])
    vectors = F.normalize(vectors.view(-1, MOMENTS, vectors.shape[1]).mean(1), dim=-1)  # (scenes, 64)
    shown = examples.shown[::MOMENTS]
    texts, mentioned = zip(*(describe(row, rng) for row in np.repeat(shown, 4, 0)), strict=True)
    true = matches(shown, np.array(mentioned))
    words = torch.cat([model.encode_text(tokenizer(list(part)), normalize=True) for part in _parts(texts)])
    best = (words @ vectors.T).topk(5).indices.numpy()  # (texts, 5)
    hits = np.take_along_axis(true, best, 1)
    recall = hits.sum(1) / np.minimum(true.sum(1), 5)
    return {"texts": len(texts), "scenes": len(shown), "first": hits[:, 0].mean(), "recall": recall.mean()}


def _parts(rows: Any, size: int = 500) -> Iterator[Any]:
    """Slices of at most `size` rows of an array or a sequence."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def save(model: torch.nn.Module, folder: Path) -> int:
    """Writes the weights as float16; returns the bytes of the file."""
    weights = {
        name: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in model.state_dict().items()
    }
    path = folder / "open_clip_model.safetensors"
    save_file(weights, path)
    return path.stat().st_size


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, metavar="DIR")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="scenes for the figures at the end")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)

    (args.output / "open_clip_model.safetensors").unlink(missing_ok=True)
    described = config(write_tokenizer(args.output))
    (args.output / "open_clip_config.json").write_text(json.dumps(described, indent=1) + "\n")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{args.output}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{args.output}")
    fit = fit_like(preprocess)
    began = time.monotonic()
    examples = draw_examples(rng, args.scenes, MOMENTS, fit, SIDE)
    held_out = draw_examples(np.random.default_rng(SEED + 1), args.held_out, MOMENTS, fit, SIDE)
    print(f"{len(examples.pictures):,} pictures drawn in {time.monotonic() - began:.0f} s", flush=True)
    train(model, tokenizer, examples, rng, args.steps, args.batch)
    size = save(model, args.output)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{args.output}")
    found = figures(model.eval(), tokenizer, held_out, np.random.default_rng(SEED + 2))
    print(
        f"{size / 1e6:.2f} MB; {found['texts']} texts over {found['scenes']} scenes it never saw: "
        f"first hit right {found['first']:.3f}, recall@5 {found['recall']:.3f}; {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
