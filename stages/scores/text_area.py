"""The stage `text:` measures how much of the picture is text: subtitles, titles, logos made of letters, signs.

Stable Video Diffusion drops clips whose detected text covers more than 7 % of the frame. Here the PP-OCRv6 detector
finds boxes of text lines and its recogniser confirms them (both come inside the package rapidocr). Without the
recogniser, the detector took 7 of 22 real frames without a letter for one large line of text.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from stages.base import ClipError, ClipStage, Column, Needs, SettingsError, one_line
from stages.frames import FrameRequest
from stages.pretrained.lookup import named_path
from stages.pretrained.packages import require_packages
from stages.pretrained.weight_hash import REVISION_DIGITS, files_hash
from stages.scores.settings import TextAreaSettings
from stages.unit import Clip, Row

VERSION = "1"  # increase it when the same frames would get other figures
DETECTOR, READER = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"  # as the wheel of rapidocr carries them
LEAST_CHARACTERS = 2  # letters or digits that a box must hold: discs are read as O, squares as the character for mouth
LEAST_SURENESS = 0.6  # mean probability of the characters read in a box


class TextArea(ClipStage[TextAreaSettings]):
    """Share of the picture under text, 0 to 1: mean and largest over the frames, and the most boxes of one.

    One frame goes through the network at a time on one thread, so a figure does not depend on its neighbours.
    """

    name = "text"
    default_table = "text"
    own_signals: ClassVar[Mapping[str, Column]] = {
        "text_area": Column(
            "double",
            "share of the frame under the union of the boxes of text lines, mean over the frames",
            "0 to 1",
            also=("text", "ocr", "subtitles", "text_share"),
        ),
        "text_area_max": Column("double", "largest share in one frame", "0 to 1"),
        "text_boxes": Column("int32", "most boxes in one frame"),
        "model": Column("string", "file of the detector"),
        "revision": Column("string", "hash of the network files in use"),
    }
    needs = Needs(cpus=1)  # onnxruntime's CPU build

    def __init__(self, settings: TextAreaSettings):
        super().__init__(settings)
        # Made absolute here, where the recipe is read: workers run in other working folders.
        self._weights = named_path(settings.weights).absolute() if settings.weights is not None else None
        self._engine: Any = None
        self._revision = ""

    def check(self) -> None:
        """Raises SettingsError for a missing package, weights that are not there or are no text detector."""
        require_packages("rapidocr", "onnxruntime", extra="ocr")
        if self.settings.device == "cuda":
            raise SettingsError("the detector runs on CPUs only, got device 'cuda': leave `device` out")
        for path in self._files():
            if not path.is_file():
                raise SettingsError(_absent(path) if path != self._weights else f"weights {path}: no such file")
        if self._weights is not None:
            _check_detector(self._weights)

    def versions(self) -> dict[str, str]:
        return {self.name: f"{VERSION}-{self._content()}"}

    def wants(self) -> FrameRequest:
        return FrameRequest(self.settings.positions, self.settings.long_side)

    def loads(self) -> tuple[str, ...]:
        return ("text detector",)

    def setup(self) -> None:
        self.check()
        import cv2
        from rapidocr import RapidOCR

        cv2.setNumThreads(1)  # one worker, one core
        files = self._files()
        side = self.settings.long_side
        params = {
            "Global.log_level": "error",
            "Global.use_cls": False,
            "Global.use_rec": self.settings.confirm,
            "Global.text_score": LEAST_SURENESS,
            "Global.max_side_len": side,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.model_path": str(files[0]),
            "Det.limit_type": "max",  # frames come at the size asked for: they are not enlarged again
            "Det.limit_side_len": side,
            # What PP-OCR detectors are trained with. The package's own 0.5 finds more text where there is none.
            "Det.mean": [0.485, 0.456, 0.406],
            "Det.std": [0.229, 0.224, 0.225],
        }
        if self.settings.confirm:
            params["Rec.model_path"] = str(files[1])
        self._revision = self._content()
        self._engine = RapidOCR(params=params)

    def close(self) -> None:
        self._engine = None

    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        model = self._files()[0].stem
        answers: list[Row | ClipError] = []
        for clip in clips:
            found = [self.boxes(picture) for _, picture in clip.frames]
            shares = [covered(boxes, picture.shape) for boxes, (_, picture) in zip(found, clip.frames, strict=True)]
            answers.append(
                {
                    "text_area": float(np.mean(shares)),
                    "text_area_max": max(shares),
                    "text_boxes": max(len(boxes) for boxes in found),
                    "model": model,
                    "revision": self._revision,
                }
            )
        return answers

    def boxes(self, picture: np.ndarray) -> np.ndarray:
        """Boxes of text lines (n, 4, 2) float32, corners (x, y) in pixels of the picture (h, w, 3) uint8 BGR."""
        found = self._engine(picture)
        if found.boxes is None or len(found.boxes) == 0:
            return np.zeros((0, 4, 2), np.float32)
        boxes = np.asarray(found.boxes, np.float32)
        if not self.settings.confirm:
            return boxes
        readable = [sum(map(str.isalnum, text)) >= LEAST_CHARACTERS for text in found.txts]
        return boxes[np.array(readable)]

    def _content(self) -> str:
        """Hash of the network files in use, 16 hex digits."""
        return files_hash("", self._files())[:REVISION_DIGITS]

    def _files(self) -> list[Path]:
        """The detector's file, then the reader's where there is one."""
        models = _package_folder() / "models"
        detector = self._weights or models / DETECTOR
        return [detector, models / READER] if self.settings.confirm else [detector]


def covered(boxes: np.ndarray, shape: tuple[int, ...]) -> float:
    """Share of a picture of this shape (h, w, …) under the union of boxes (n, 4, 2)."""
    import cv2

    mask = np.zeros(shape[:2], np.uint8)
    for box in boxes:
        cv2.fillPoly(mask, [np.round(box).astype(np.int32)], 1)
    return float(mask.mean())


def _check_detector(path: Path) -> None:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each way a file can be wrong
        raise SettingsError(f"weights {str(path)!r} can't be loaded by onnxruntime: {one_line(error)}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    fits = len(inputs) == len(outputs) == 1 and len(inputs[0].shape) == len(outputs[0].shape) == 4
    if not fits or inputs[0].shape[1] != 3:
        given = ", ".join(str(one.shape) for one in (*inputs, *outputs))
        raise SettingsError(
            f"weights {str(path)!r} are no PP-OCR text detector: that takes one picture (1, 3, h, w) and "
            f"gives one map (1, 1, h, w), this has {given}"
        )


def _absent(path: Path) -> str:
    version = importlib.metadata.version("rapidocr")
    return f"rapidocr {version} does not carry {path.name}: pip install 'clipmill[ocr]', or name `weights` of your own"


def _package_folder() -> Path:
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError("needs the package rapidocr: pip install 'clipmill[ocr]'")
    return Path(spec.submodule_search_locations[0])
