"""Captions from a vision-language model of transformers, in this process: Qwen-VL, LLaVA, SmolVLM, BLIP, ...

A model with a chat template sees all the frames as pictures before the prompt; one without (BLIP) takes one
picture, the middle frame, and goes on from the prompt. Clips go through one at a time: padding them into
batches would change what is said, and whoever has many clips is better served by a server (vLLM).
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

from stages.base import ClipError, SettingsError, one_line
from stages.captions.answers import Answer, Deadline
from stages.captions.settings import CaptionSettings
from stages.pretrained.lookup import local_folder, read_config
from stages.unit import Clip

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


class VisionLanguage:
    """A model found by `check`, loaded by `setup`."""

    costly = True

    def __init__(self, settings: CaptionSettings):
        assert settings.model is not None
        self.settings, self.all = settings.model, settings
        self.model: Any = None
        self.processor: Any = None

    @property
    def label(self) -> str:
        """What goes into the rows: the folder's name, or that on the hub."""
        folder = local_folder(self.settings.name)
        return folder.resolve().name if folder else self.settings.name

    def check(self) -> None:
        for package in ("torch", "torchvision", "transformers"):
            if importlib.util.find_spec(package) is None:
                raise SettingsError(f"this needs the package {package}: pip install 'clipmill[caption]'")
        read_config(self.settings.name, self.settings.revision)
        if local_folder(self.settings.name) and not self._weights():
            raise SettingsError(f"model {self.settings.name!r} has no weights ({', '.join(WEIGHTS)})")

    def content(self) -> str:
        """Hash of a local model's files, '' for one of a hub (its name and revision are settings)."""
        from stages.pretrained.weights import revision_of

        folder = local_folder(self.settings.name)
        return revision_of([*self._weights(), *folder.glob("*.json")]) if folder is not None else ""

    def setup(self) -> None:
        self.check()
        import torch
        import transformers

        if self.all.device == "cuda" and not torch.cuda.is_available():
            raise SettingsError("device: cuda, but there is no GPU that torch can use")
        gpu = torch.cuda.is_available() and self.all.device != "cpu"
        self.device = "cuda" if gpu else "cpu"
        dtype = self.settings.dtype
        if dtype == "auto" and not gpu:
            dtype = "float32"  # half precision on a CPU is slower, not faster
        folder = local_folder(self.settings.name)
        where: dict[str, Any] = {} if folder else {"revision": self.settings.revision}
        name = str(folder or self.settings.name)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.processor = transformers.AutoProcessor.from_pretrained(name, **where)
                model, found = transformers.AutoModelForImageTextToText.from_pretrained(
                    name, dtype=dtype, output_loading_info=True, **where
                )
        except Exception as error:  # every way in which a folder can be no such model
            raise SettingsError(f"model {self.settings.name!r} can't be loaded: {one_line(error)[:300]}") from error
        if missing := sorted(found["missing_keys"]):
            # transformers would go on with random numbers in their place.
            lacks = f"lacks {len(missing)} of its weights, {missing[0]} among them"
            raise SettingsError(f"model {self.settings.name!r} {lacks}")
        self.model = model.eval().to(self.device)
        self.revision = self.content() or getattr(model.config, "_commit_hash", None)
        self.chats = bool(getattr(self.processor, "chat_template", None))

    def halt(self) -> None:
        pass

    def close(self) -> None:
        self.model = self.processor = None

    def caption(self, clip: Clip, name: str, prompt: str, deadline: Deadline) -> Answer:
        """Seeded anew for each caption, so that it is the same whatever was captioned before."""
        import torch

        inputs = self._inputs(clip, prompt)
        asked = inputs.get("input_ids")
        sampling = {"do_sample": True, "temperature": self.all.temperature} if self.all.temperature else {}
        with torch.inference_mode(), torch.random.fork_rng(devices=[0] if self.device == "cuda" else []):
            torch.manual_seed(self.all.seed)
            said = self.model.generate(
                **inputs, max_new_tokens=self.all.max_tokens, **(sampling or {"do_sample": False})
            )[0]
        if asked is not None and said[: asked.shape[1]].tolist() == asked[0].tolist():
            said = said[asked.shape[1] :]  # models that give the prompt back in front
        text = self.processor.decode(said, skip_special_tokens=True).strip()
        if not self.chats and prompt and text.lower().startswith(prompt.lower()):
            text = text[len(prompt) :].strip()
        if not text:
            raise ClipError("the model's answer has no text")
        return Answer(text, "model", "stop" if self._ended(said) else "length", self.label, self.revision)

    def _inputs(self, clip: Clip, prompt: str) -> Any:
        import torch
        from PIL import Image

        pictures = [Image.fromarray(picture[:, :, ::-1].copy(), "RGB") for _, picture in clip.frames]
        if self.chats:
            parts = [{"type": "image", "image": picture} for picture in pictures]
            made = self.processor.apply_chat_template(
                [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}],
                add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            )  # fmt: skip
        else:
            text = {"text": prompt} if prompt else {}
            made = self.processor(images=pictures[len(pictures) // 2], return_tensors="pt", **text)
        kind = self.model.dtype
        return {
            key: value.to(self.device, kind) if torch.is_floating_point(value) else value.to(self.device)
            for key, value in made.items()
            if isinstance(value, torch.Tensor)
        }

    def _ended(self, said: Any) -> bool:
        """Whether the model ended by itself: its last token is one that ends."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        config = getattr(self.model.config, "text_config", None)  # BLIP ends with its decoder's own token
        ends += [getattr(config, "sep_token_id", None), getattr(config, "eos_token_id", None)]
        return len(said) > 0 and int(said[-1]) in {end for end in ends if isinstance(end, int)}

    def _weights(self) -> list[Path]:
        folder = local_folder(self.settings.name)
        return [path for path in folder.iterdir() if path.suffix in WEIGHTS] if folder else []
