"""Captions from a vision-language model of transformers, in this process: Qwen-VL, LLaVA, SmolVLM, BLIP, ...

A model with a chat template gets all frames as images before the prompt; one without (BLIP) gets one image, the
middle frame, and continues the prompt. Clips go through one at a time: padding them into batches would change the
captions, and a server (vLLM) is faster for many clips.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base import ClipError, SettingsError, one_line
from stages.captions.answers import Answer, CaptionSource, Deadline
from stages.captions.settings import CaptionSettings
from stages.pretrained.devices import dtype_on, torch_device
from stages.pretrained.lookup import local_folder
from stages.pretrained.model_files import read_config, refuse_missing_weights
from stages.pretrained.packages import require_packages
from stages.unit import Clip

if TYPE_CHECKING:
    import torch

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


class ModelCaptions(CaptionSource):
    """A vision-language model: found by `check`, loaded by `setup`."""

    def __init__(self, settings: CaptionSettings):
        if settings.model is None:
            raise ValueError("captions from a model need its settings")
        self.settings, self.all = settings.model, settings
        self.model: Any = None
        self.processor: Any = None

    @property
    def label(self) -> str:
        """The model's name in the rows: its folder's name, or its name on the hub."""
        folder = local_folder(self.settings.name)
        return folder.resolve().name if folder else self.settings.name

    def check(self) -> None:
        require_packages("torch", "torchvision", "transformers", extra="caption")
        read_config(self.settings.name, self.settings.revision)
        if local_folder(self.settings.name) and not self._weights():
            raise SettingsError(f"model {self.settings.name!r} has no weights ({', '.join(WEIGHTS)})")

    def content(self) -> str:
        """Hash of a local model's files; '' for a model of a hub, whose name and revision are settings."""
        from stages.pretrained.weight_hash import REVISION_DIGITS, files_hash

        folder = local_folder(self.settings.name)
        if folder is None:
            return ""
        return files_hash("", self._weights(), folder.glob("*.json"))[:REVISION_DIGITS]

    def loads(self) -> tuple[str, ...]:
        return (f"captioning model {self.label}",)

    def setup(self) -> None:
        self.check()
        import transformers

        self.device = torch_device(self.all.device)
        dtype = dtype_on(self.device, self.settings.dtype, gpu="auto")  # on a GPU as it is stored
        folder = local_folder(self.settings.name)
        where: dict[str, Any] = {} if folder else {"revision": self.settings.revision}
        name = str(folder or self.settings.name)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.processor = transformers.AutoProcessor.from_pretrained(name, **where)
                # its stubs do not know that output_loading_info adds a second value
                load: Any = transformers.AutoModelForImageTextToText.from_pretrained
                model, loading = load(name, dtype=dtype, output_loading_info=True, **where)
        except Exception as error:  # every way in which a folder can be no such model
            raise SettingsError(f"model {self.settings.name!r} can't be loaded: {one_line(error)[:300]}") from error
        refuse_missing_weights(f"model {self.settings.name!r}", loading["missing_keys"])
        self.model = model.eval().to(self.device)
        self.revision = self.content() or getattr(model.config, "_commit_hash", None)
        self.chats = bool(getattr(self.processor, "chat_template", None))

    def close(self) -> None:
        self.model = self.processor = None

    def caption(self, clip: Clip, name: str, prompt: str, deadline: Deadline) -> Answer:
        """The random generator is seeded for each caption, so that clips before it make no difference."""
        import torch

        inputs = self._inputs(clip, prompt)
        prompt_ids = inputs.get("input_ids")  # (1, n)
        sampling = {"do_sample": True, "temperature": self.all.temperature} if self.all.temperature else {}
        with torch.inference_mode(), torch.random.fork_rng(devices=[0] if self.device == "cuda" else []):
            torch.manual_seed(self.all.seed)
            tokens = self.model.generate(
                **inputs, max_new_tokens=self.all.max_tokens, **(sampling or {"do_sample": False})
            )[0]  # (m,)
        if prompt_ids is not None and tokens[: prompt_ids.shape[1]].tolist() == prompt_ids[0].tolist():
            tokens = tokens[prompt_ids.shape[1] :]  # some models repeat the prompt before the caption
        text = self.processor.decode(tokens, skip_special_tokens=True).strip()
        if not self.chats and prompt and text.lower().startswith(prompt.lower()):
            text = text[len(prompt) :].strip()
        if not text:
            raise ClipError("the model's answer has no text")
        return Answer(text, "model", "stop" if self._ended(tokens) else "length", self.label, self.revision)

    def _inputs(self, clip: Clip, prompt: str) -> dict[str, torch.Tensor]:
        """The model's arguments for the clip's frames and the prompt, on its device."""
        import torch
        from PIL import Image

        images = [Image.fromarray(image[:, :, ::-1].copy(), "RGB") for _, image in clip.frames]
        if self.chats:
            parts = [{"type": "image", "image": image} for image in images]
            made = self.processor.apply_chat_template(
                [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}],
                add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            )  # fmt: skip
        else:
            text = {"text": prompt} if prompt else {}
            made = self.processor(images=images[len(images) // 2], return_tensors="pt", **text)
        dtype = self.model.dtype
        return {
            key: value.to(self.device, dtype) if torch.is_floating_point(value) else value.to(self.device)
            for key, value in made.items()
            if isinstance(value, torch.Tensor)
        }

    def _ended(self, tokens: torch.Tensor) -> bool:
        """Whether the model stopped by itself: the last of the tokens (m,) is one that ends a text."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        config = getattr(self.model.config, "text_config", None)  # BLIP ends with its decoder's own token
        ends += [getattr(config, "sep_token_id", None), getattr(config, "eos_token_id", None)]
        return len(tokens) > 0 and int(tokens[-1]) in {end for end in ends if isinstance(end, int)}

    def _weights(self) -> list[Path]:
        folder = local_folder(self.settings.name)
        return [path for path in folder.iterdir() if path.suffix in WEIGHTS] if folder else []
