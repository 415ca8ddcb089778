"""Perceptual distance of pictures. LPIPS (Zhang et al. 2018) where its weights are at hand, as the published package
computes it, from its own small weights and torchvision's VGG-16 or AlexNet; otherwise differences of gradients at
several scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.tensors import read_tensors

SHIFT = (-0.030, -0.088, -0.188)  # with SCALE: pixels in [-1, 1] to those that the networks were trained on
SCALE = (0.458, 0.448, 0.450)
# Layers of torchvision's `features`: a number is a convolution's channels, "M" a pooling, "|" an output for LPIPS.
VGG = (64, 64, "|", "M", 128, 128, "|", "M", 256, 256, 256, "|", "M", 512, 512, 512, "|", "M", 512, 512, 512, "|")
ALEX = (64, "|", "M", 192, "|", "M", 384, "|", 256, "|", 256, "|")
ALEX_KERNELS = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))  # size, stride, zeros around
SCALES = 3  # of the gradients: full size, a half, a quarter


class LPIPS(nn.Module):
    """Distance of pictures (N, 3, H, W) in [-1, 1], (N,): 0 for identical pictures, larger for less similar ones.

    `lpips` holds the weights of the published package (lin0.model.1.weight, ...), `backbone` torchvision's
    (features.0.weight, ...), whose shapes say which network it is. Raises ValueError, in one line, for other weights.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, lpips: Mapping[str, Tensor], backbone: Mapping[str, Tensor]):
        super().__init__()
        first = backbone.get("features.0.weight")
        if first is None or tuple(first.shape[2:]) not in ((3, 3), (11, 11)):
            raise ValueError("the backbone is neither torchvision's VGG-16 nor its AlexNet")
        self.name = "vgg" if first.shape[2] == 3 else "alex"
        plan = VGG if self.name == "vgg" else ALEX
        self.features, index = nn.ModuleList(), 0
        self.taps: list[int] = []  # after how many of the features an output is taken
        widths: list[int] = []  # channels of those outputs
        channels, kernels = 3, iter(ALEX_KERNELS)
        for step in plan:
            if step == "|":
                self.taps.append(len(self.features))
                widths.append(channels)
            elif step == "M":
                self.features.append(nn.MaxPool2d(2, 2) if self.name == "vgg" else nn.MaxPool2d(3, 2))
                index += 1
            else:
                size, stride, around = (3, 1, 1) if self.name == "vgg" else next(kernels)
                width = int(step)
                layer = nn.Conv2d(channels, width, size, stride, around)
                for name, parameter in layer.named_parameters():  # weight and bias
                    _take(parameter, backbone, f"features.{index}.{name}", "backbone")
                self.features += [layer, nn.ReLU()]
                channels, index = width, index + 2
        self.weights = nn.ParameterList(torch.empty(1, width, 1, 1) for width in widths)
        for number, weight in enumerate(self.weights):
            _take(weight, lpips, f"lin{number}.model.1.weight", "LPIPS weights")
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        distance = one.new_zeros(len(one))
        for weight, a, b in zip(self.weights, self._outputs(one), self._outputs(other), strict=True):
            distance = distance + ((_unit(a) - _unit(b)).square() * weight).sum(1).mean(dim=(1, 2))
        return distance

    def _outputs(self, pictures: Tensor) -> list[Tensor]:
        x, found = (pictures - self.shift) / self.scale, []
        for number, layer in enumerate(self.features, 1):
            x = layer(x)
            if number in self.taps:
                found.append(x)
        return found


def load_lpips(lpips: str | Path, backbone: str | Path) -> LPIPS:
    """LPIPS from files as torch or safetensors save them. Raises ValueError, in one line."""
    return LPIPS(_read(lpips), _read(backbone))


def gradient_loss(one: Tensor, other: Tensor) -> Tensor:
    """(N, 3, H, W) twice to (N,): mean absolute difference of the pictures' gradients, across and down, at three
    scales, so that edges must be where they were. Needs no weights.
    """
    # Gradients are linear: the gradient of the difference is the difference of the gradients.
    difference, losses = one - other, []
    for scale in range(SCALES):
        if scale:
            if min(difference.shape[2:]) < 4:
                break
            difference = F.avg_pool2d(difference, 2)
        across, down = difference.diff(dim=3), difference.diff(dim=2)
        losses.append(across.abs().mean(dim=(1, 2, 3)) + down.abs().mean(dim=(1, 2, 3)))
    return torch.stack(losses).mean(0)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _take(parameter: Tensor, weights: Mapping[str, Tensor], name: str, what: str) -> None:
    found = weights.get(name)
    if found is None or found.shape != parameter.shape:
        shape = "nothing" if found is None else tuple(found.shape)
        raise ValueError(f"the {what} should have {name} of {tuple(parameter.shape)}, and have {shape}")
    with torch.no_grad():
        parameter.copy_(found)


def _read(path: str | Path) -> dict[str, Tensor]:
    try:
        if Path(path).suffix == ".safetensors":
            return read_tensors(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} can't be read as weights: {reason}") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds {type(found).__name__}, not weights by name")
    return dict(found)
