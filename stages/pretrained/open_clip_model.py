"""Runs an OpenCLIP model: pictures and texts to embeddings. Loaded once a process, shared by its stages."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.saved.weight_hash import state_hash
from stages.base import SettingsError, one_line
from stages.pretrained.devices import dtype_on, torch_device
from stages.pretrained.open_clip_lookup import OpenClipSpec
from stages.pretrained.open_clip_names import require_open_clip
from stages.pretrained.weight_hash import REVISION_DIGITS

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class OpenClipModel:
    """A loaded model: pictures and texts to L2-normalised embeddings (n, width) float32.

    Its weights are float32; with another `dtype` the network runs in it by autocast.
    """

    def __init__(self, spec: OpenClipSpec, network: Any, preprocess: Any, device: str, dtype: str, revision: str):
        self.spec, self.name, self.revision = spec, spec.name, revision
        self.network, self.device, self.dtype = network, device, dtype
        self.width = spec.width
        self._on_pictures, self._on_batches = _split(preprocess)
        self._tokens: Callable[..., Any] | None = None
        self._loading = threading.Lock()

    def prepared(self, picture: np.ndarray) -> Tensor:
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

    def encode_prepared(self, prepared: Sequence[Tensor]) -> np.ndarray:
        """(n, width) float32, L2-normalised, from what `prepared` gave."""
        import torch

        if not prepared:
            return np.zeros((0, self.width), np.float32)
        with torch.inference_mode():
            batch = torch.stack(list(prepared))
            if self.device == "cuda":
                batch = batch.pin_memory().to(self.device, non_blocking=True)
            return self.encode_tensor(self._on_batches(batch)).cpu().numpy()

    def encode_tensor(self, batch: Tensor) -> Tensor:
        """Normalised embeddings (n, width) float32 of ready tensors (n, 3, size, size), on the model's device."""
        return self._normalized(self.network.encode_image, batch)

    def encode_pictures(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """(n, width) float32 of pictures (h, w, 3) uint8 BGR."""
        return self.encode_prepared([self.prepared(picture) for picture in pictures])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, width) float32, L2-normalised; a text too long for the encoder is cut (see `fits`)."""
        import torch

        if not texts:
            return np.zeros((0, self.width), np.float32)
        with torch.inference_mode():
            tokens = self.tokenizer()(list(texts)).to(self.device)
            return self._normalized(self.network.encode_text, tokens).cpu().numpy()

    def fits(self, text: str) -> bool:
        """Whether the text encoder sees all of the text."""
        tokens = self.tokenizer()
        if hasattr(tokens, "encode"):  # open_clip's own tokenizer, without start and end
            return len(tokens.encode(text)) + 2 <= tokens.context_length
        return len(tokens.tokenizer.encode(text, verbose=False)) <= tokens.context_length

    def _normalized(self, encode: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        import torch

        with (
            torch.inference_mode(),
            torch.autocast(self.device, dtype=getattr(torch, self.dtype), enabled=self.dtype != "float32"),
        ):
            found = encode(batch)
        return torch.nn.functional.normalize(found.float(), dim=-1)

    def tokenizer(self) -> Any:
        """The one of open_clip: texts to tokens (n, context) int64. SettingsError where it can't be loaded."""
        with self._loading:
            if self._tokens is None:
                import open_clip

                try:
                    self._tokens = open_clip.get_tokenizer(self.spec.schema)
                except Exception as error:
                    raise SettingsError(
                        f"model {self.name}: its tokenizer can't be loaded: {one_line(error)}"
                    ) from error
        return self._tokens


def load_model(spec: OpenClipSpec, device: str = "auto", dtype: str = "auto") -> OpenClipModel:
    """The model, ready to run; stages of one process share it.

    `device` 'auto' takes a GPU where there is one; `dtype` 'auto' is float32 on CPUs and float16 on GPUs
    (autocast). SettingsError: no such device, weights that can't be had or do not fit.
    """
    device = torch_device(device)
    with _LOADING:  # two stages of one worker must not load it twice
        return _loaded(spec, device, dtype_on(device, dtype, gpu="float16"))


_LOADING = threading.Lock()


@functools.lru_cache(maxsize=2)
def _loaded(spec: OpenClipSpec, device: str, dtype: str) -> OpenClipModel:
    require_open_clip()
    import open_clip

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = open_clip.create_model(
                spec.schema, pretrained=spec.pretrained, device="cpu", require_pretrained=True
            )
            preprocess = open_clip.transform.image_transform_v2(
                open_clip.transform.PreprocessCfg(**network.visual.preprocess_cfg), is_train=False
            )
    except Exception as error:
        advice = f"; {spec.advice}" if spec.weights is None else ""
        raise SettingsError(f"model {spec.name} can't be loaded: {one_line(error)[:300]}{advice}") from error
    network.eval().requires_grad_(False)
    revision = state_hash("", network.state_dict())[:REVISION_DIGITS]
    return OpenClipModel(spec, network.to(device), preprocess, device, dtype, revision)


def _split(preprocess: Any) -> tuple[Callable[[Image], Any], Callable[[Tensor], Tensor]]:
    """A transform split where pictures become tensors: (PIL -> PIL, (n, 3, h, w) uint8 -> float).

    Resizing is the expensive part and runs picture by picture on threads; the rest is arithmetic on each value, the
    same on a batch, and runs where the network does. A transform of another form is not split.
    """
    import torch

    steps = list(getattr(preprocess, "transforms", []))
    names = [type(step).__name__ for step in steps]
    place = next((i for i, name in enumerate(names) if name.endswith("ToTensor")), None)
    if place is None or names[place + 1 :] not in ([], ["Normalize"]):
        return preprocess, lambda batch: batch

    def on_picture(image: Image) -> Image:
        for step in steps[:place]:
            image = step(image)
        return image

    def on_batch(batch: Tensor) -> Tensor:
        batch = batch.to(torch.float32).div(255)
        for step in steps[place + 1 :]:
            batch = step(batch)
        return batch

    return on_picture, on_batch
