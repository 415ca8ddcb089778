"""How well a caption fits its clip: the mean cosine of CLIP embeddings, text against frames.

A text that the encoder sees whole is one text. A longer one, which the encoder would cut, is scored in
sentences (halved where even those are too long), and the score is their mean: the best sentence alone would
hide the ones that are made up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.captions.audit import pieces
from stages.captions.settings import MatchSettings
from stages.clip_stage import ClipInput


class Match:
    """An OpenCLIP model as `embed` loads it."""

    def __init__(self, settings: MatchSettings, device: str):
        self.settings, self.device = settings, device

    def check(self) -> None:
        """Finds the model without loading it; SettingsError."""
        from stages.clip_models import available, find_model

        available(find_model(self.settings.model, self.settings.pretrained))

    def content(self) -> str:
        """Hash of the model's local weights, '' where a tag names them."""
        from stages.clip_models import find_model

        return find_model(self.settings.model, self.settings.pretrained).content()

    def setup(self) -> None:
        from stages.clip_models import find_model, load_model

        self.model = load_model(find_model(self.settings.model, self.settings.pretrained), self.device)
        self.name, self.revision = self.model.name, self.model.revision

    def scores(self, clips: Sequence[ClipInput], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each clip the cosine of each of its texts, -1 to 1."""
        parts = [[pieces(text, self.model.fits) for text in of_clip] for of_clip in texts]
        flat = list(dict.fromkeys(piece for of_clip in parts for found in of_clip for piece in found))
        place = {piece: index for index, piece in enumerate(flat)}
        embedded = self.model.encode_texts(flat)
        seen = self.model.encode_pictures([picture for clip in clips for _, picture in clip.frames])
        found, start = [], 0
        for clip, of_clip in zip(clips, parts, strict=True):
            frames = seen[start : start + len(clip.frames)].astype(np.float64)
            start += len(clip.frames)
            cosines = [[float((frames @ embedded[place[piece]]).mean()) for piece in text] for text in of_clip]
            found.append([float(np.mean(of_text)) if of_text else 0.0 for of_text in cosines])
        return found
