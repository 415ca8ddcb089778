"""A tiny OpenCLIP model trained on the demo's scenes, so that `make demo` and the tests need no download.

It knows the colours, shapes, grounds and titles of curate/demo/scenes.py and nothing else. Its files ship in
stages/pretrained; recipes name it `clipmill:tiny_clip`.
"""

from stages.pretrained.lookup import shipped

FOLDER = shipped("tiny_clip")
MODEL = f"local-dir:{FOLDER}"  # what open_clip.create_model_and_transforms and get_tokenizer take
"""OpenCLIP's own words for a model in a folder."""
