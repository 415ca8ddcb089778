"""A small OpenCLIP model with random weights, in a folder, loaded through the same code as a real one."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESS = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}


def clip_folder(seed: int = 0, suffix: str = "safetensors") -> Path:
    """A folder with the model of that seed, made once; the weights' file is .safetensors or a .bin of torch."""
    return _folder(seed, suffix)


@cache
def _folder(seed: int, suffix: str) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = Path(tempfile.mkdtemp(prefix="clip-")) / f"tiny{seed}"
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = open_clip.model.CLIP(**CONFIG).state_dict()
    # Initial weights are so small that every picture gives nearly the same embedding.
    weights = {name: value * (3 if value.ndim > 1 else 1) for name, value in weights.items()}
    if suffix == "safetensors":
        save_file(weights, folder / "open_clip_model.safetensors")
    else:
        torch.save(weights, folder / "open_clip_pytorch_model.bin")
    return folder


@cache
def by_hand(folder: Path) -> tuple[Any, Any, Any]:
    """(network, transform, tokenizer) as open_clip itself gives them."""
    import open_clip

    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return network.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")
