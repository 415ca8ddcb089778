"""How well a caption fits its clip: the mean cosine of CLIP embeddings of the text and of the frames.

A text too long for the encoder, which would cut it, is scored in sentences (halved where even those are too long),
and the score is their mean: the best sentence alone would hide the ones that are made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stages.captions.audit import pieces
from stages.captions.settings import MatchSettings
from stages.frames import FrameRequest
from stages.unit import Clip

if TYPE_CHECKING:
    from stages.pretrained.open_clip_lookup import OpenClipSpec
    from stages.pretrained.open_clip_model import OpenClipModel


class ClipMatch:
    """An OpenCLIP model as `embed` loads it. Frame embeddings that another stage made already are used again."""

    def __init__(self, settings: MatchSettings, device: str):
        self.settings, self.device = settings, device
        self.request: FrameRequest | None = None  # of the frames that `scores` is given
        self._loaded: OpenClipModel | None = None

    def check(self) -> None:
        """Finds the model without loading it; SettingsError."""
        from stages.pretrained.open_clip_lookup import available

        available(self._find())

    def content(self) -> str:
        """Hash of the model's local weights, '' where a tag names them."""
        return self._find().content()

    def own_request(self, positions: tuple[float, ...]) -> FrameRequest:
        """What `embed` would ask for, so that both see the same frames and the network runs once for both."""
        from stages.scores.frame_embeddings import OVERSIZE

        return FrameRequest(positions, OVERSIZE * self._find().image_size)

    def loads(self) -> tuple[str, ...]:
        return (f"CLIP model {self._find().name}",)

    def setup(self) -> None:
        from stages.pretrained.open_clip_model import load_model

        self._loaded = load_model(self._find(), self.device)

    @property
    def model(self) -> OpenClipModel:
        if self._loaded is None:
            raise RuntimeError("captions are matched after setup()")
        return self._loaded

    def scores(self, clips: Sequence[Clip], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each clip the cosine of each of its texts, -1 to 1."""
        parts = [[pieces(text, self.model.fits) for text in of_clip] for of_clip in texts]
        flat = list(dict.fromkeys(piece for of_clip in parts for found in of_clip for piece in found))
        vectors = dict(zip(flat, self.model.encode_texts(flat), strict=True))  # each (width,)
        scores = []
        for frames, of_clip in zip(self._frames(clips), parts, strict=True):
            cosines = [[float((frames @ vectors[piece]).mean()) for piece in text] for text in of_clip]
            scores.append([float(np.mean(of_text)) if of_text else 0.0 for of_text in cosines])
        return scores

    def _frames(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """(k, width) of each clip's distinct frames; computed for clips that have none yet, and left for others."""
        from stages.scores.frame_embeddings import FrameVectors

        source = self.model.spec
        key = ("frame_vectors", source.model, source.pretrained, "auto", self.request)
        todo = [clip for clip in clips if key not in clip.features]
        pictures = [list({at: picture for at, picture in sorted(c.frames, key=lambda f: f[0])}.values()) for c in todo]
        encoded = self.model.encode_pictures([picture for of_clip in pictures for picture in of_clip])
        start = 0
        for clip, of_clip in zip(todo, pictures, strict=True):
            clip.features[key] = FrameVectors(encoded[start : start + len(of_clip)].copy(), self.model.revision)
            start += len(of_clip)
        return [clip.features[key].vectors.astype(np.float64) for clip in clips]

    def _find(self) -> OpenClipSpec:
        from stages.pretrained.open_clip_lookup import find_model

        return find_model(self.settings.model, self.settings.pretrained)
