"""A tiny OpenCLIP model trained on the demo's scenes, so that `make demo` and the tests need no download.

It knows the colours, shapes, grounds and titles of curate/demo/scenes.py and nothing else. OpenCLIP loads it
by its path, as any other local model.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODEL = f"local-dir:{FOLDER}"  # what open_clip.create_model_and_transforms and get_tokenizer take
"""OpenCLIP's own words for a model in a folder."""
