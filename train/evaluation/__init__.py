"""How good samples are, in numbers. Networks that see come in as callables: no figure here loads one by itself.

Features are (N, D), one row a video or picture. PSNR and SSIM are in train/evaluation/reconstruction.py.
"""

from train.evaluation.clipsim import clipsim
from train.evaluation.features import FewSamples, extracted, torchscript
from train.evaluation.frechet import Gaussian, frechet_distance
from train.evaluation.inception_score import inception_score
from train.evaluation.kernel import kernel_distance

__all__ = [
    "FewSamples",
    "Gaussian",
    "clipsim",
    "extracted",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "torchscript",
]
