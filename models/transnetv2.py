"""TransNet V2: a network that finds shot transitions in 100 small frames (Souček and Lokoč 2020, arXiv 2008.04838).

Three stacks of dilated convolutions over time and space; beside their features, each frame's likeness to its
neighbours by colour histogram and by learned features. The names of its parameters are those of the published
PyTorch weights, so that these load as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = 100  # frames looked at together
HEIGHT, WIDTH = 27, 48  # of a frame, whatever its aspect was
NEIGHBOURS = 50  # frames on either side that a frame is compared with
DILATIONS = (1, 2, 4, 8)  # of the convolutions over time, frames


class TransNetV2(nn.Module):
    """Frames (b, t, 27, 48, 3) uint8 RGB to probabilities (b, t, 2).

    The first says that the frame is the last before a cut, or the middle of a slow transition; the second that it
    is anywhere in a transition.
    """

    def __init__(self, filters: int = 16, stacks: int = 3, hidden: int = 1024):
        super().__init__()
        widths = [filters * 2**k for k in range(stacks)]
        inputs = [3, *(4 * width for width in widths)]
        self.SDDCNN = nn.ModuleList(_Stack(before, width) for before, width in zip(inputs[:-1], widths, strict=True))
        self.frame_sim_layer = _FrameLikeness(sum(inputs[1:]))
        self.color_hist_layer = _HistogramLikeness()
        rows, columns = HEIGHT // 2**stacks, WIDTH // 2**stacks
        self.fc1 = nn.Linear(inputs[-1] * rows * columns + 2 * 128, hidden)
        self.cls_layer1 = nn.Linear(hidden, 1)
        self.cls_layer2 = nn.Linear(hidden, 1)

    def forward(self, frames: Tensor) -> Tensor:
        features = []
        x = frames.permute(0, 4, 1, 2, 3).float() / 255  # (b, 3, t, h, w)
        for stack in self.SDDCNN:
            x = stack(x)
            features.append(x)
        x = x.permute(0, 2, 3, 4, 1).flatten(2)  # (b, t, rows * columns * channels)
        x = torch.cat([self.color_hist_layer(frames), self.frame_sim_layer(features), x], 2)
        x = functional.relu(self.fc1(x))
        return torch.cat([self.cls_layer1(x), self.cls_layer2(x)], 2).sigmoid()


class _Stack(nn.Module):
    """Two blocks of convolutions, the first around the second as a shortcut, and half the size: (b, c, t, h, w)."""

    def __init__(self, inputs: int, filters: int):
        super().__init__()
        self.DDCNN = nn.ModuleList([_Block(inputs, filters), _Block(4 * filters, filters)])

    def forward(self, x: Tensor) -> Tensor:
        first = functional.relu(self.DDCNN[0](x))
        return functional.avg_pool3d(functional.relu(self.DDCNN[1](first)) + first, (1, 2, 2))


class _Block(nn.Module):
    """Four convolutions side by side that reach 1, 2, 4 and 8 frames to either side: (b, 4 * filters, t, h, w)."""

    def __init__(self, inputs: int, filters: int):
        super().__init__()
        for dilation in DILATIONS:
            self.add_module(f"Conv3D_{dilation}", _Separable(inputs, filters, dilation))
        self.bn = nn.BatchNorm3d(4 * filters, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.cat([self.get_submodule(f"Conv3D_{dilation}")(x) for dilation in DILATIONS], 1))


class _Separable(nn.Module):
    """A convolution over space, then one over time."""

    def __init__(self, inputs: int, filters: int, dilation: int):
        super().__init__()
        over_space = nn.Conv3d(inputs, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
        over_time = nn.Conv3d(
            2 * filters, filters, (3, 1, 1), dilation=(dilation, 1, 1), padding=(dilation, 0, 0), bias=False
        )
        self.layers = nn.ModuleList([over_space, over_time])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](self.layers[0](x))


class _FrameLikeness(nn.Module):
    """How much each frame is like its neighbours by the features of all stacks: (b, t, 128)."""

    def __init__(self, inputs: int):
        super().__init__()
        self.projection = nn.Linear(inputs, 128)
        self.fc = nn.Linear(2 * NEIGHBOURS + 1, 128)

    def forward(self, features: list[Tensor]) -> Tensor:
        means = torch.cat([x.mean((3, 4)) for x in features], 1).transpose(1, 2)  # (b, t, channels)
        return functional.relu(self.fc(_likeness(self.projection(means))))


class _HistogramLikeness(nn.Module):
    """How much each frame is like its neighbours by histograms of 8 x 8 x 8 colours: (b, t, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * NEIGHBOURS + 1, 128)

    def forward(self, frames: Tensor) -> Tensor:
        red, green, blue = (frames.flatten(2, 3) >> 5).long().unbind(3)  # (b, t, pixels), 0 to 7
        colours = (red << 6) + (green << 3) + blue
        histograms = torch.zeros(*colours.shape[:2], 512, device=frames.device)
        histograms.scatter_add_(2, colours, torch.ones_like(colours, dtype=histograms.dtype))
        return functional.relu(self.fc(_likeness(histograms)))


def _likeness(vectors: Tensor) -> Tensor:
    """Cosines of each frame's vector with those of its neighbours: (b, t, c) to (b, t, 101); 0 outside the window."""
    unit = functional.normalize(vectors, dim=2)
    cosines = functional.pad(unit @ unit.transpose(1, 2), (NEIGHBOURS, NEIGHBOURS))  # (b, t, t + 100)
    t = vectors.shape[1]
    near = torch.arange(t, device=vectors.device)[:, None] + torch.arange(2 * NEIGHBOURS + 1, device=vectors.device)
    return cosines.gather(2, near.expand(len(vectors), -1, -1))
