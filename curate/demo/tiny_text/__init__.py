"""A tiny BERT text encoder for the demo's prompts, with random weights that `make.py` wrote.

The tiny OpenCLIP model beside it can't be used for that: it was trained on single frames, in which "left" and "right"
look the same, so it hardly distinguishes these words. Random vectors, one for each word, do, and to a network that is
trained on a few captions they are as good as any. Its files ship in stages/pretrained; recipes name it
`clipmill:tiny_text`.
"""

from stages.pretrained.lookup import shipped

FOLDER = shipped("tiny_text")
