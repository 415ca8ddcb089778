"""A tiny text encoder of transformers' kind (BERT) for the demo's prompts: `make.py` wrote it, nobody trained it.

The tiny OpenCLIP model beside it can't be used for that: it learned from single frames, in which "left" and "right"
look the same, and so hardly tells these words apart. Random vectors, one for each word, do: to a network that learns
from a few captions they are as good as any.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
