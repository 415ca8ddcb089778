"""Figures for the quality of samples; networks that embed or classify are given by the caller, and none is loaded here.

Features are (N, D), one row per video or picture. PSNR and SSIM are in train/evaluation/reconstruction.py.
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
