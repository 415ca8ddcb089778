"""Pretrained models: where they lie, which they are (hashes of weights), and how they are loaded."""
