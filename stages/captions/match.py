"""How well a caption fits its clip: the mean cosine of CLIP embeddings, text against frames.

A text that the encoder sees whole is one text. A longer one, which the encoder would cut, is scored in
sentences (halved where even those are too long), and the score is their mean: the best sentence alone would
hide the ones that are made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.captions.audit import pieces
from stages.captions.settings import MatchSettings
from stages.frames import FrameRequest
from stages.unit import Clip


class Match:
    """An OpenCLIP model as `embed` loads it, and its embeddings where `embed` or another stage made them."""

    def __init__(self, settings: MatchSettings, device: str):
        self.settings, self.device = settings, device
        self.request: FrameRequest | None = None  # of the frames that `scores` is given
        self.model: Any = None

    def check(self) -> None:
        """Finds the model without loading it; SettingsError."""
        from stages.pretrained.clip_models import available

        available(self._source())

    def content(self) -> str:
        """Hash of the model's local weights, '' where a tag names them."""
        return self._source().content()

    def own_request(self, positions: tuple[float, ...]) -> FrameRequest:
        """What `embed` would ask for, so that both see the same frames and the network runs once for both."""
        from stages.scores.frame_embeddings import OVERSIZE

        return FrameRequest(positions, OVERSIZE * self._source().image_size)

    def setup(self) -> None:
        from stages.pretrained.clip_models import load_model

        source = self._source()
        self.model = load_model(source, self.device)
        self.name, self.revision = self.model.name, self.model.revision
        self.key = ("frame_vectors", source.model, source.pretrained, "auto", self.request)

    def scores(self, clips: Sequence[Clip], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each clip the cosine of each of its texts, -1 to 1."""
        parts = [[pieces(text, self.model.fits) for text in of_clip] for of_clip in texts]
        flat = list(dict.fromkeys(piece for of_clip in parts for found in of_clip for piece in found))
        said = dict(zip(flat, self.model.encode_texts(flat), strict=True))
        scores = []
        for frames, of_clip in zip(self._frames(clips), parts, strict=True):
            cosines = [[float((frames @ said[piece]).mean()) for piece in text] for text in of_clip]
            scores.append([float(np.mean(of_text)) if of_text else 0.0 for of_text in cosines])
        return scores

    def _frames(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """(k, width) of each clip's distinct frames; computed for those that have none yet, and left for others."""
        from stages.scores.frame_embeddings import FrameVectors

        todo = [clip for clip in clips if self.key not in clip.features]
        pictures = [list({at: picture for at, picture in sorted(c.frames, key=lambda f: f[0])}.values()) for c in todo]
        seen = self.model.encode_pictures([picture for of_clip in pictures for picture in of_clip])
        start = 0
        for clip, of_clip in zip(todo, pictures, strict=True):
            clip.features[self.key] = FrameVectors(seen[start : start + len(of_clip)].copy(), self.revision)
            start += len(of_clip)
        return [clip.features[self.key].vectors.astype(np.float64) for clip in clips]

    def _source(self) -> Any:
        from stages.pretrained.clip_models import find_model

        return find_model(self.settings.model, self.settings.pretrained)
