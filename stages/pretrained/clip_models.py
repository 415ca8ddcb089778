"""OpenCLIP models for stages: which weights settings name, found without loading; loaded once a process.

A model is a name of open_clip with a pretrained tag or a local checkpoint, a local folder that holds
`open_clip_config.json` and the weights, or `hf-hub:ORG/REPO`.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stages.base import SettingsError, one_line
from stages.pretrained.clip_registry import architectures, nearest, require_open_clip, tags_of
from stages.pretrained.hub import cached_or_reachable, hub_file
from stages.settings import ModelSettings, Positions

DEFAULT_MODEL, DEFAULT_TAG = "ViT-L-14", "laion2b_s32b_b82k"
CONFIG, HUB = "open_clip_config.json", "hf-hub:"
# The order in which open_clip looks for the weights of a folder.
WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
Precision = Literal["auto", "fp32", "fp16", "bf16"]


class ClipModelSettings(ModelSettings):
    """What a stage that looks through an OpenCLIP model can be told."""

    model: str = DEFAULT_MODEL  # a name of open_clip, a folder, or hf-hub:ORG/REPO
    pretrained: str | None = DEFAULT_TAG  # a tag of open_clip or a local checkpoint; a folder holds its own
    precision: Precision = "auto"  # fp32 on CPUs, fp16 on GPUs
    positions: Positions = (0.1, 0.5, 0.9)  # of a clip's length


@dataclass(frozen=True)
class ClipSource:
    """A model found but not loaded. `model` and `pretrained` are what open_clip is told."""

    name: str  # 'ViT-L-14/laion2b_s32b_b82k', the folder's name: what goes into the rows
    model: str
    pretrained: str | None
    config: str  # the architecture, as JSON
    weights: str | None  # the local file of the weights, None where a hub has them

    @property
    def schema(self) -> str:
        """The model by open_clip's own rules: a folder has a prefix."""
        return f"local-dir:{self.model}" if os.path.isabs(self.model) else self.model

    @property
    def image_size(self) -> int:
        """Long side of the pictures that the network sees, pixels."""
        size = json.loads(self.config)["vision_cfg"].get("image_size", 224)
        return max(size) if isinstance(size, list) else size

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return json.loads(self.config)["embed_dim"]

    def content(self) -> str:
        """Hash of the local weights' bytes; '' where a tag names them."""
        return file_hash(self.weights) if self.weights else ""


def find_model(model: str = DEFAULT_MODEL, pretrained: str | None = None) -> ClipSource:
    """The source that settings name, without importing torch. SettingsError: unknown names, files not there."""
    require_open_clip()
    if model.startswith(HUB):
        return _on_hub(model)
    known = architectures()
    cleaned = model.replace("/", "-")
    if cleaned not in known or os.path.isdir(os.path.expanduser(model)):
        return _in_folder(model, known)
    config = json.loads(known[cleaned].read_text())
    pretrained = pretrained or DEFAULT_TAG
    tags = tags_of(cleaned)
    tag = pretrained.lower().replace("-", "_")
    if tag in tags:
        quick = bool(config.get("quick_gelu"))
        other = cleaned.removesuffix("-quickgelu") if quick else f"{cleaned}-quickgelu"
        if quick != tags[tag][0] and other != cleaned and other in known:  # open_clip only warns, and embeds wrongly
            raise SettingsError(f"pretrained tag {tag!r} was trained with another activation: use model: {other}")
        return ClipSource(f"{cleaned}/{tag}", cleaned, tag, json.dumps(config), None)
    path = os.path.abspath(os.path.expanduser(pretrained))
    if os.path.isfile(path):
        return ClipSource(f"{cleaned}/{Path(path).name}", cleaned, path, json.dumps(config), path)
    if os.sep in pretrained:
        raise SettingsError(f"pretrained: no checkpoint at {pretrained}")
    near = nearest(tag, tags, "tags")
    raise SettingsError(f"model {cleaned} has no pretrained tag {pretrained!r}: {near} A local checkpoint will do too")


def settings_source(settings: ClipModelSettings) -> ClipSource:
    """`find_model` of a stage's settings. SettingsError also where weights are given beside a folder."""
    source = find_model(settings.model, settings.pretrained)
    if source.pretrained is None and settings.pretrained and "pretrained" in settings.model_fields_set:
        raise SettingsError(f"model {settings.model} holds its own weights: leave `pretrained` out")
    return source


def available(source: ClipSource) -> None:
    """SettingsError when the weights are on a hub that can't be reached and no copy is here."""
    if source.weights is not None:
        return
    if source.model.startswith(HUB):
        cached_or_reachable(source.model.removeprefix(HUB), WEIGHTS, _advice(source))
        return
    _, repository = tags_of(source.model).get(source.pretrained or "", (False, ""))
    if repository:
        folder, _, file = repository.rpartition("/")
        files = (file,) if file else WEIGHTS
        cached_or_reachable(folder, files, _advice(source))


class ClipModel:
    """A loaded model: pictures and texts to L2-normalised embeddings (n, width) float32."""

    def __init__(self, source: ClipSource, network: Any, preprocess: Any, device: str, precision: str, revision: str):
        self.source, self.name, self.revision = source, source.name, revision
        self.network, self.device, self.precision = network, device, precision
        self.width = source.width
        self._on_pictures, self._on_batches = _split(preprocess)
        self._tokens: Callable[..., Any] | None = None
        self._loading = threading.Lock()

    def prepared(self, picture: np.ndarray) -> Any:
        """The model's own transform of a picture (h, w, 3) uint8 BGR, as far as it works on PIL images.

        Gives (3, size, size) uint8 (or what an unusual transform ends with); made to run on threads ahead.
        """
        import torch
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1]), "RGB")
        made = self._on_pictures(image)
        if isinstance(made, torch.Tensor):
            return made
        return torch.from_numpy(np.array(made)).permute(2, 0, 1)

    def encode_prepared(self, prepared: Sequence[Any]) -> np.ndarray:
        """(n, width) float32, L2-normalised, from what `prepared` gave."""
        import torch

        if not prepared:
            return np.zeros((0, self.width), np.float32)
        with torch.inference_mode():
            batch = torch.stack(list(prepared))
            if self.device == "cuda":
                batch = batch.pin_memory().to(self.device, non_blocking=True)
            return self.encode_tensor(self._on_batches(batch)).cpu().numpy()

    def encode_tensor(self, batch: Any) -> Any:
        """Normalised embeddings (n, width) float32 of ready tensors (n, 3, size, size), on the model's device."""
        return self._normalised(self.network.encode_image, batch)

    def encode_pictures(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """(n, width) float32 of pictures (h, w, 3) uint8 BGR."""
        return self.encode_prepared([self.prepared(picture) for picture in pictures])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, width) float32, L2-normalised; a text too long for the encoder is cut (see `fits`)."""
        import torch

        if not texts:
            return np.zeros((0, self.width), np.float32)
        with torch.inference_mode():
            tokens = self._tokenizer()(list(texts)).to(self.device)
            return self._normalised(self.network.encode_text, tokens).cpu().numpy()

    def fits(self, text: str) -> bool:
        """Whether the text encoder sees all of the text."""
        tokens = self._tokenizer()
        if hasattr(tokens, "encode"):  # open_clip's own tokenizer, without start and end
            return len(tokens.encode(text)) + 2 <= tokens.context_length
        return len(tokens.tokenizer.encode(text, verbose=False)) <= tokens.context_length

    def _normalised(self, encode: Callable[..., Any], batch: Any) -> Any:
        import torch

        kinds = {"fp16": torch.float16, "bf16": torch.bfloat16}
        reduced = self.precision in kinds
        with (
            torch.inference_mode(),
            torch.autocast(self.device, dtype=kinds.get(self.precision, torch.bfloat16), enabled=reduced),
        ):
            found = encode(batch)
        return torch.nn.functional.normalize(found.float(), dim=-1)

    def _tokenizer(self) -> Any:
        with self._loading:
            if self._tokens is None:
                import open_clip

                try:
                    self._tokens = open_clip.get_tokenizer(self.source.schema)
                except Exception as error:
                    raise SettingsError(
                        f"model {self.name}: its tokenizer can't be loaded: {one_line(error)}"
                    ) from error
        return self._tokens


def load_model(source: ClipSource, device: str = "auto", precision: str = "auto") -> ClipModel:
    """The model, ready to run; stages of one process share it.

    `device` 'auto' takes a GPU where there is one; `precision` 'auto' is fp32 on CPUs and fp16 on GPUs
    (autocast). SettingsError: no such device, weights that can't be had or do not fit.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device: cuda, but there is no GPU that torch can use")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if precision == "auto":
        precision = "fp16" if chosen == "cuda" else "fp32"
    with _LOADING:  # two stages of one worker must not load it twice
        return _loaded(source, chosen, precision)


_LOADING = threading.Lock()


@functools.lru_cache(maxsize=2)
def _loaded(source: ClipSource, device: str, precision: str) -> ClipModel:
    require_open_clip()
    import open_clip

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = open_clip.create_model(
                source.schema, pretrained=source.pretrained, device="cpu", require_pretrained=True
            )
            preprocess = open_clip.transform.image_transform_v2(
                open_clip.transform.PreprocessCfg(**network.visual.preprocess_cfg), is_train=False
            )
    except Exception as error:
        advice = f"; {_advice(source)}" if source.weights is None else ""
        raise SettingsError(f"model {source.name} can't be loaded: {one_line(error)[:300]}{advice}") from error
    network.eval().requires_grad_(False)
    revision = weights_hash(network)
    return ClipModel(source, network.to(device), preprocess, device, precision, revision)


def weights_hash(network: Any) -> str:
    """16 hex digits: xxh3-64 of every loaded weight, in order of names, whatever file they came from."""
    import xxhash

    found = xxhash.xxh3_64()
    for name, weight in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(memoryview(np.ascontiguousarray(weight.float().cpu().numpy())).cast("B"))
    return found.hexdigest()


def file_hash(path: str) -> str:
    """16 hex digits: xxh3-64 of a file's bytes."""
    import xxhash

    found = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            found.update(block)
    return found.hexdigest()


def _split(preprocess: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """A transform cut where pictures become tensors: (PIL -> PIL, (n, 3, h, w) uint8 -> float).

    Resizing is what costs and runs picture by picture on threads; the rest is arithmetic on each value, the
    same on a batch, done where the network runs. A transform of another form is left whole.
    """
    import torch

    steps = list(getattr(preprocess, "transforms", []))
    names = [type(step).__name__ for step in steps]
    place = next((i for i, name in enumerate(names) if name.endswith("ToTensor")), None)
    if place is None or names[place + 1 :] not in ([], ["Normalize"]):
        return preprocess, lambda batch: batch

    def on_picture(image: Any) -> Any:
        for step in steps[:place]:
            image = step(image)
        return image

    def on_batch(batch: Any) -> Any:
        batch = batch.to(torch.float32).div(255)
        for step in steps[place + 1 :]:
            batch = step(batch)
        return batch

    return on_picture, on_batch


def _in_folder(model: str, known: dict[str, Path]) -> ClipSource:
    folder = Path(os.path.abspath(os.path.expanduser(model.removeprefix("local-dir:"))))
    if not folder.is_dir():
        if os.sep in model or model.startswith(("~", ".", "local-dir:")):
            raise SettingsError(f"model: no folder {model}")
        near = nearest(model, known, "names")
        raise SettingsError(f"open_clip knows no model {model!r}: {near} A folder with {CONFIG} will do too")
    try:
        config = json.loads((folder / CONFIG).read_text())["model_cfg"]
        config["embed_dim"], config["vision_cfg"]
    except OSError as error:
        raise SettingsError(f"model: folder {model} has no {CONFIG}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"model: {folder / CONFIG} is no model configuration of open_clip") from error
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise SettingsError(f"model: folder {model} holds no weights ({WEIGHTS[0]})")
    return ClipSource(folder.name, str(folder), None, json.dumps(config), str(weights))


def _on_hub(model: str) -> ClipSource:
    advice = f"download it where there is a network and give its folder as `model`, with {CONFIG} and the weights"
    path = hub_file(model.removeprefix(HUB), CONFIG, advice)
    try:
        config = json.loads(Path(path).read_text())["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"model {model}: its {CONFIG} is no model configuration of open_clip") from error
    return ClipSource(model.removeprefix(HUB), model, None, json.dumps(config), None)


def _advice(source: ClipSource) -> str:
    if source.pretrained:
        return "give `pretrained` the path of a local checkpoint"
    return f"give `model` the path of a local folder with {CONFIG} and the weights"
